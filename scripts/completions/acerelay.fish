# Completion of fish for acerelay. A test holds that it has every flag of acerelay --help.
complete -c acerelay -f
complete -c acerelay -l config -r -F -d 'read this file'
complete -c acerelay -l listen -x -d 'listen here'
complete -c acerelay -l engine -x -d 'use this engine'
complete -c acerelay -l log-level -x -a 'error warn info debug trace' -d 'how much to log'
complete -c acerelay -l state-dir -x -a '(__fish_complete_directories)' -d 'keep here what outlives the process'
complete -c acerelay -l demo -d 'use a simulated engine'
complete -c acerelay -l check-config -d 'check the configuration and exit'
complete -c acerelay -l print-config -d 'print the effective configuration and exit'
complete -c acerelay -l health -d 'ask a running acerelay whether it is well'
complete -c acerelay -s V -l version -d 'print the version and exit'
complete -c acerelay -s h -l help -d 'print help and exit'
