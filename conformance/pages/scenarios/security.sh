# docs/security.md: a member that asks for certificates, and users.
# shellcheck shell=bash disable=SC2034,SC2154

scenario_security() {
    secured
    run security try-tls
    run security users
    run security users-try
    says '^app$'
}
