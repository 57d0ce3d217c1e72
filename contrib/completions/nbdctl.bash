# bash completion of nbdctl.  Verbs and options come from its own help.

_nbdctl_names() {
	nbdctl status 2>/dev/null | awk 'NR > 1 && /^[^ ]/ { print $1; print $2 }'
}

_nbdctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} verb='' i words=''
	for ((i = 1; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} != -* && ${COMP_WORDS[i]} != = &&
		      ${COMP_WORDS[i-1]} != = ]]; then
			verb=${COMP_WORDS[i]}
			break
		fi
	done
	case $cur in
	-*)	words=$(nbdctl ${verb:+"$verb"} --help 2>/dev/null |
			sed -n 's/^  \(--[a-z-]*=\{0,1\}\).*/\1/p')
		[[ $words == *=* ]] && compopt -o nospace ;;
	*)	case $verb in
		'')	words=$(nbdctl --help 2>/dev/null | sed -n 's/^  \([a-z]\{1,\}\)  .*/\1/p') ;;
		detach | events | map | status | reconnect | move)
			words=$(_nbdctl_names) ;;
		help)	words=$(nbdctl --help 2>/dev/null | sed -n 's/^  \([a-z]\{1,\}\)  .*/\1/p') ;;
		boot | check)
			compopt -o default
			COMPREPLY=()
			return ;;
		esac ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _nbdctl nbdctl
