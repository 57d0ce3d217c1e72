#!/bin/bash
# dracut module nbdd: root and other devices on NBD.  See nbdd.boot(7).

# called by dracut
check() {
    require_binaries nbdd nbdctl || return 1
    # Where the root of this machine is on NBD; else by `add_dracutmodules+=" nbdd "`.
    if [[ $hostonly ]] || [[ $mount_needs ]]; then
        local device
        for device in "${!host_fs_types[@]}"; do
            [[ $device == /dev/nbd* ]] && return 0
        done
    fi
    return 255
}

# The network that dracut 059 takes where it finds systemd-networkd and nothing else: it comes
# up, and then nothing is started.
networkd_starts_nothing() {
    local handler
    for handler in network-wicked connman network-manager network-legacy; do
        ! dracut_module_included "$handler" || return 1
    done
    [[ ! -e $dracutsysrootdir$systemdsystemunitdir/wicked.service ]] || return 1
    [[ ! -e $dracutsysrootdir$systemdsystemunitdir/connman.service ]] || return 1
    for handler in libexec lib; do
        [[ ! -x $dracutsysrootdir/usr/$handler/nm-initrd-generator ]] || return 1
        [[ ! -x $dracutsysrootdir/usr/$handler/NetworkManager/nm-initrd-generator ]] || return 1
    done
    handler=$(dracut_module_path systemd-networkd)
    [[ -d $handler && ! -e $handler/networkd-run.sh ]] &&
        [[ -d $(dracut_module_path network-legacy) ]]
}

# called by dracut
depends() {
    ! networkd_starts_nothing || echo network-legacy
    echo network rootfs-block
}

# called by dracut
installkernel() {
    hostonly='' instmods nbd tls gcm chacha20poly1305
    # The generic ciphers are what a machine without instructions for them has.
    hostonly='' instmods -o ctr ghash_generic chacha_generic poly1305_generic
    hostonly='' instmods -o aesni_intel ghash_clmulni_intel chacha_x86_64 poly1305_x86_64
}

# called by dracut
install() {
    inst_multiple nbdd nbdctl
    # Loaded when a URI is read; it is not in the programs' lists of libraries.  What it needs
    # itself dracut looks up only where libraries are executable, not on Debian.
    local directory
    inst_libdir_file 'libxml2.so.2*'
    for directory in $libdirs; do
        [[ ! -e $dracutsysrootdir$directory/libxml2.so.2 ]] || inst_multiple \
            $(${DRACUT_LDD:-ldd} "$dracutsysrootdir$directory/libxml2.so.2" |
                sed -n 's|^[^/]*\(/[^ ]*\) (.*|\1|p')
    done
    inst_hook cmdline 89 "$moddir/parse-nbdd.sh"
    inst_script "$moddir/nbddroot.sh" /sbin/nbddroot
    [[ ! -d /etc/nbdd/boot ]] || inst_multiple /etc/nbdd/boot/*
    if dracut_module_included systemd; then
        inst_simple "$moddir/nbdd-initrd.service" "$systemdsystemunitdir/nbdd-initrd.service"
        inst_script "$moddir/generator.sh" \
            "$systemdutildir/system-generators/dracut-nbdd-generator"
    fi
    dracut_need_initqueue
}
