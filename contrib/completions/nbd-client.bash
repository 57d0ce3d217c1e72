# bash completion of nbd-client.  Options come from its own help, devices from sysfs and
# nbdtab.

_nbd_client() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=''
	case ${prev/#--/-} in
	-cacertfile | -certfile | -keyfile | -[AFK] | -unix | -u)
		compopt -o default
		COMPREPLY=()
		return ;;
	-disconnect | -check | -[dc])
		words=$(cd /sys/block 2>/dev/null && for d in nbd*/pid; do
			[ -e "$d" ] && echo "/dev/${d%/pid}"; done) ;;
	-block-size | -b)
		words='512 1024 2048 4096' ;;
	*)	case $cur in
		-*)	words=$(nbd-client -help 2>&1 | grep -o -- ' -[a-z][a-z-]*') ;;
		/*)	words=$(printf '/dev/nbd%d\n' {0..15}) ;;
		*)	words=$(sed -n 's/^[[:blank:]]*\(nbd[0-9]\{1,\}\)[[:blank:]].*/\1/p' \
				/etc/nbdtab 2>/dev/null) ;;
		esac ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _nbd_client nbd-client
