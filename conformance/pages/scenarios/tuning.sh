# docs/tuning.md: its blocks are run by the scenario of docs/monitoring.md.
