#!/bin/sh
# systemd generator in the initramfs: mount the root that is named by root=nbd: or netroot=.
# For a root=/dev/nbdNpM or root=UUID= systemd has its own.
nbdd_root='' nbdd_fstype='' nbdd_flags=''
eval "$(nbdctl boot --dracut /proc/cmdline 2>/dev/null)"
[ -n "$nbdd_root" ] || exit 0
options=$nbdd_flags access='' timeout=infinity
for word in $(cat /proc/cmdline); do
    case $word in
    root=/dev/* | root=UUID=* | root=LABEL=* | root=PARTUUID=* | root=PARTLABEL=*) exit 0 ;;
    ro | rw) access=$word ;;
    rd.timeout=*) timeout=${word#rd.timeout=} ;;
    rootfstype=*) nbdd_fstype=${nbdd_fstype:-${word#rootfstype=}} ;;
    rootflags=*) options=${options:-${word#rootflags=}} ;;
    esac
done
[ -z "$access" ] || options=${options:+$options,}$access
{
    echo '[Unit]'
    echo 'Before=initrd-root-fs.target'
    echo 'Documentation=man:nbdd.boot(7)'
    echo '[Mount]'
    echo 'Where=/sysroot'
    echo "What=$nbdd_root"
    [ -z "$nbdd_fstype" ] || echo "Type=$nbdd_fstype"
    echo "Options=${options:-ro}"
} >"$1/sysroot.mount"
mkdir -p "$1/initrd-root-fs.target.requires"
ln -sf ../sysroot.mount "$1/initrd-root-fs.target.requires/sysroot.mount"

# The server may be away for longer than systemd waits for a device otherwise.
device=dev-${nbdd_root#/dev/}.device
mkdir -p "$1/$device.d"
{
    echo '[Unit]'
    echo "JobTimeoutSec=$timeout"
    echo "JobRunningTimeoutSec=$timeout"
} >"$1/$device.d/nbdd.conf"
