#!/bin/sh
# Sourced by dracut: does the kernel's command line name devices of ours?
# In /run/nbdd others than root may write, once the system runs.
mkdir -p /run/nbdd-root
getcmdline >/run/nbdd-root/cmdline
nbdctl boot --print /run/nbdd-root/cmdline >/run/nbdd-root/boot.conf
if [ $? != 4 ]; then
    eval "$(nbdctl boot --dracut /run/nbdd-root/cmdline)"
    if [ -n "$nbdd_root" ]; then
        : >/run/nbdd-root/mark  # for nbdd-generator
        # root=nbd: is the disk itself; with netroot= the root may be a partition.
        case $root in
        nbd:* | nbd://* | nbds://* | '') root=block:$nbdd_root ;;
        /dev/*) root=block:$root ;;
        esac                    # UUID= and the like: dracut's own parse-block.sh
        [ -z "$nbdd_fstype" ] || fstype=$nbdd_fstype
        [ -z "$nbdd_flags" ] || rflags=$nbdd_flags
        netroot=nbdd
        rootok=1
        case $root in
        block:*) wait_for_dev -n "${root#block:}" ;;
        esac
    else
        # Other devices only: they need the network, and nobody waits for them.
        mkdir -p /etc/cmdline.d
        echo rd.neednet=1 >/etc/cmdline.d/90-nbdd.conf
        mkdir -p "$hookdir/initqueue/online"
        ln -s /sbin/nbddroot "$hookdir/initqueue/online/90-nbdd.sh"
    fi
fi
