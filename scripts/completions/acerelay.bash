# Completion of bash for acerelay. A test holds that it has every flag of acerelay --help.
_acerelay() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    case $before in
        --config) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        --log-level) mapfile -t COMPREPLY < <(compgen -W 'error warn info debug trace' -- "$current") ;;
        --state-dir) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        --listen | --engine | --health) COMPREPLY=() ;;
        *)
            mapfile -t COMPREPLY < <(compgen -W '--config --listen --engine --log-level --state-dir --demo
                --check-config --print-config --health --version --help' -- "$current")
            ;;
    esac
}
complete -o filenames -F _acerelay acerelay
