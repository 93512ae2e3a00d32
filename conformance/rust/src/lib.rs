//! Contains tests only: see `tests/`.
