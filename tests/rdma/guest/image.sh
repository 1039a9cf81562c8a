#!/usr/bin/env bash
# Makes the guest's image, once, and prints the directory it is in: kernel, initial RAM disk, root file system.
# It is made of Debian 12's packages only, and named by the hash of what it is made by. Exit code 77 says that something
# cannot be had here, in one line.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
export PATH="$PATH:/usr/sbin:/sbin"

SUITE=bookworm
# What tests run there, and what the interpreters of others link to. rdma-core's own services are not needed: `rdma`
# comes with iproute2.
PACKAGES=(python3 python3-pyverbs python3-pytest libibverbs1 ibverbs-providers librdmacm1 ibverbs-utils perftest
    iproute2 kmod procps busybox-static e2fsprogs fuse3 util-linux libuuid1 libnl-3-200 libnl-route-3-200)
# Modules that the root file system needs before it is there, then those that init.sh loads. The kernel for clouds has
# no rdma_rxe.
BOOT_MODULES=(virtio_pci virtio_blk ext4 9p 9pnet_virtio overlay virtio_console)
MODULES=(crc32_generic crc32-pclmul rdma_rxe ib_uverbs rdma_ucm dummy veth sch_netem virtio_rng fuse)

say() { printf 'guest image: %s\n' "$*" >&2; }
skip() { say "$*"; exit 77; }

cache="${XDG_CACHE_HOME:-$HOME/.cache}"
key="$(cat -- "$here/image.sh" "$here/early.sh" | sha256sum | cut -c1-12)"
image="$cache/emberfs-rdma-guest-$key"

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)

# program=package ...: installs the packages whose programs are not here.
require() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ "${#missing[@]}" = 0 ] && return
    command -v apt-get >/dev/null || skip "needs ${missing[*]}, and there is no apt-get"
    say "installing ${missing[*]}"
    install_packages "${missing[@]}" || { "${as_root[@]}" timeout --kill-after=10 120 apt-get update -qq &&
        install_packages "${missing[@]}"; } >/dev/null 2>&1 </dev/null || skip "apt-get could not install ${missing[*]}"
}
install_packages() {
    "${as_root[@]}" timeout --kill-after=10 300 env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 </dev/null
}

# what command...: runs it quietly; its last line is the reason when it fails.
attempt() {
    local what="$1"
    shift
    "$@" >"$work/log" 2>&1 </dev/null || skip "$what: $(tail -n 1 -- "$work/log")"
}

# The files of modules and of what they need, in the order in which they are loaded.
module_files() {
    local module
    for module in "$@"; do
        modprobe -d "$work/kernel" -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
    done | awk '!seen[$0]++'
}

make_image() {
    local root="$work/root" kernel file
    [ "$(id -u)" = 0 ] || skip "only root can make the image, once: sudo XDG_CACHE_HOME=$cache bash $here/image.sh"
    say "making $image of Debian's packages, once: a minute or two"
    attempt "mmdebstrap failed" timeout --kill-after=10 600 mmdebstrap --quiet --mode=root --variant=minbase \
        --include="$(IFS=,; echo "${PACKAGES[*]}")" --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$SUITE" "$root"

    # The kernel is unpacked, never installed.
    say "fetching its kernel"
    apt-cache show linux-image-amd64 >/dev/null 2>&1 || attempt "apt-get update failed" apt-get update -qq
    kernel="$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')"
    release="${kernel#linux-image-}"
    (cd "$work" && attempt "apt-get could not download the kernel" timeout --kill-after=10 600 apt-get download -qq "$kernel")
    dpkg-deb -x "$work/$kernel"_*.deb "$work/kernel"
    depmod -b "$work/kernel" "$release"

    mkdir -p "$work"/early/{bin,modules,dev,proc,sys,lower,space,new}
    cp -- "$root/bin/busybox" "$work/early/bin/"
    install -m 755 -- "$here/early.sh" "$work/early/init"
    module_files "${BOOT_MODULES[@]}" | while read -r file; do
        cp -- "$file" "$work/early/modules/"
        basename "$file" >>"$work/early/modules/order"
    done
    (cd "$work/early" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd"
    module_files "${BOOT_MODULES[@]}" "${MODULES[@]}" | while read -r file; do
        install -D -m 644 -- "$file" "$root/${file#"$work/kernel/"}"
    done
    cp -- "$work/kernel/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$release/"
    depmod -b "$root" "$release"

    # One package of the guest's Python for the interpreters of others; all of dist-packages would be too much.
    mkdir -p "$root/opt/pyverbs" "$root/control"
    ln -s /usr/lib/python3/dist-packages/pyverbs "$root/opt/pyverbs/pyverbs"
    rm -rf -- "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
    mkdir "$work/image"
    attempt "mke2fs failed" mke2fs -q -t ext4 -m 0 -O ^has_journal -N 40000 -d "$root" "$work/image/root.ext4" \
        "$(($(du -sk "$root" | cut -f1) * 5 / 4 + 16384))k"
    cp -- "$work/kernel/boot/vmlinuz-$release" "$work/image/vmlinuz"
    mv -- "$work/initrd" "$work/image/initrd"
    printf '%s\n' "$kernel" >"$work/image/kernel"
    chmod -R a+rX "$work/image"
    mv -T -- "$work/image" "$image"
}

[ "$(uname -sm)" = "Linux x86_64" ] || skip "the guest is an x86-64 machine on Linux, which this is not"
require qemu-system-x86_64=qemu-system-x86 flock=util-linux setpriv=util-linux mke2fs=e2fsprogs
mkdir -p "$cache"
if [ ! -d "$image" ]; then
    exec 9>"$cache/emberfs-rdma-guest.lock"
    flock 9
    if [ ! -d "$image" ]; then
        require mmdebstrap=mmdebstrap cpio=cpio modprobe=kmod dpkg-deb=dpkg
        # What a month has not used was made by another recipe.
        find "$cache" -maxdepth 1 -name 'emberfs-rdma-guest-*' -mtime +30 -exec rm -rf -- {} +
        work="$(mktemp -d "$cache/emberfs-rdma-guest-$key.XXXXXX")"
        trap 'rm -rf -- "$work"' EXIT
        chmod 755 "$work"
        make_image
    fi
    exec 9>&-
fi
touch -c "$image" 2>/dev/null || true
printf '%s\n' "$image"
