#!/usr/bin/env bash
# Runs a command in a virtual machine that has software RDMA devices (soft-RoCE), with this tree at its own path:
#
#   tests/rdma/guest.sh [options] COMMAND [ARGUMENT...]
#
#   --host-python     share the Python of the tree's .venv, and put it first in PATH; it finds the guest's pyverbs
#   --nics N          1 (as without it): rxe0.  2: rxe0 and rxe1, joined by a cable (veth) that can be cut, slowed and
#                     robbed.  4: two such pairs, in subnets 10.77.0.0/24 and 10.77.1.0/24.  rxeN is on ethN
#   --mtu N           of the network devices (4200: enough for RDMA's 4096)
#   --env NAME[=VALUE]  a variable for the command: this value, or the one it has here
#   --read-only DIR   share a folder more, at its own path
#   --tree DIR        the tree, in place of this one
#   --timeout S       seconds for the whole run, boot included (600)
#   --memory M, --processors N  (2G, 2)
#   --console FILE    keep what the guest's kernel said
#
# What the command prints is printed, and its exit code is the code of this script; 77: the guest cannot be had here, 124:
# out of time, 125: the guest ended without an exit code, 126: a bad option. The guest has EMBERFS_RDMA_GUEST=1 in its
# environment and no network but those devices. It writes to the tree; what else it writes goes with it. It ends with this
# script, and this script with its caller.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
say() { printf 'guest: %s\n' "$*" >&2; }
refuse() { say "$*"; exit 126; }

tree="$(cd "$here/../.." && pwd -P)" nics=1 mtu=4200 limit_s=600 memory=2G processors=2 console="" host_python=0
read_only=() variables=()
while [ "$#" != 0 ]; do
    case "$1" in
        --host-python) host_python=1; shift; continue ;;
        --) shift; break ;;
        -*) [ "$#" -ge 2 ] || refuse "$1 takes a value" ;;
        *) break ;;
    esac
    case "$1" in
        --nics) nics="$2" ;;
        --mtu) mtu="$2" ;;
        --env) variables+=("$2") ;;
        --read-only) read_only+=("$(cd "$2" && pwd -P)") || refuse "there is no folder $2" ;;
        --tree) tree="$(cd "$2" && pwd -P)" || refuse "there is no folder $2" ;;
        --timeout) limit_s="$2" ;;
        --memory) memory="$2" ;;
        --processors) processors="$2" ;;
        --console) console="$2" ;;
        *) refuse "no such option: $1" ;;
    esac
    shift 2
done
[ "$#" != 0 ] || refuse "which command?"
case "$nics" in 1 | 2 | 4) ;; *) refuse "--nics is 1, 2 or 4" ;; esac
python="$tree/.venv/bin/python"
[ "$host_python" = 0 ] || [ -x "$python" ] || refuse "--host-python: there is no $python (tests/run.sh makes it)"

image="$(bash "$here/guest/image.sh")" || exit

caller="$PPID"
# What a script that was killed has left: a disk may be large.
for left in "${TMPDIR:-/tmp}"/emberfs-guest.[0-9]*.*; do
    owner="${left##*/emberfs-guest.}"
    [ -d "/proc/${owner%%.*}" ] || rm -rf -- "$left" 2>/dev/null || true
done
run="$(mktemp -d "${TMPDIR:-/tmp}/emberfs-guest.$$.XXXXXX")"
machine="" printer=""
finish() {
    local process
    for process in $machine $printer; do
        kill -KILL "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    [ -z "$console" ] || cp -- "$run/console" "$console" 2>/dev/null || true
    rm -rf -- "$run"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$run/control"
cp -- "$here/guest/init.sh" "$run/control/"
chmod 755 "$run/control/init.sh"

# Every folder that the interpreter imports from, but for what the tree and the folders before it have.
share_python() {
    local folder had within
    while read -r folder; do
        within=0
        for had in "$tree" "${read_only[@]}"; do
            case "$folder/" in "$had"/*) within=1 ;; esac
        done
        [ "$within" = 1 ] || read_only+=("$folder")
    done < <("$1" - <<'PYTHON'
import os, sys
for folder in [sys.base_prefix, *map(os.path.realpath, sys.path)]:
    if os.path.isdir(folder) and folder != os.getcwd():
        print(os.path.realpath(folder))
PYTHON
    )
}
if [ "$host_python" = 1 ]; then
    # The distribution's Python lies in /usr, which the guest has of its own.
    if [ "$("$python" -c 'import sys; print(sys.base_prefix)')" = /usr ]; then
        "$python" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 11))' || {
            say "this tree's .venv uses the distribution's Python, which is not the guest's 3.11"
            exit 77
        }
    else
        share_python "$python"
    fi
fi

{
    declare -p read_only | sed 's/^declare -a read_only/READ_ONLY/'
    printf 'TREE=%q NICS=%q MTU=%q\n' "$tree" "$nics" "$mtu"
} >"$run/control/settings"
{
    echo 'export EMBERFS_RDMA_GUEST=1'
    if [ "$host_python" = 1 ]; then
        printf 'export PATH=%q:$PATH PYTHONPATH=/opt/pyverbs\n' "$tree/.venv/bin"
    fi
    for variable in "${variables[@]}"; do
        case "$variable" in
            *=*) printf 'export %s=%q\n' "${variable%%=*}" "${variable#*=}" ;;
            *) [ -z "${!variable+set}" ] || printf 'export %s=%q\n' "$variable" "${!variable}" ;;
        esac
    done
    case "$PWD/" in "$tree"/*) printf 'cd %q\n' "$PWD" ;; *) printf 'cd %q\n' "$tree" ;; esac
    printf 'exec'
    printf ' %q' "$@"
    echo
} >"$run/control/job"

shares=()
share() {
    shares+=(-fsdev "local,id=$1,path=${2//,/,,},security_model=none,multidevs=remap$3"
        -device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}
share control "$run/control" ""
share tree "$tree" ""
for index in "${!read_only[@]}"; do
    share "readonly$index" "${read_only[index]}" ,readonly=on
done

# The output goes through a pipe with a reader of its own: QEMU takes the end of its standard input for a closed port.
mkfifo "$run/output"
cat <"$run/output" &
printer="$!"
truncate -s 16G "$run/disk"
PATH="$PATH:/usr/sbin:/sbin" mke2fs -q -t ext4 -m 0 -O ^has_journal -E lazy_itable_init=1,nodiscard "$run/disk"
# Plain emulation: it needs no rights, and runs inside other virtual machines. The kernel ends QEMU when this script dies.
# The guest's kernel would panic if too few ticks of a timer came at its boot, as on a busy machine (no_timer_check), and
# measure the processor's counter wrongly there: its clock has run seven times too fast. The HPET's frequency is known.
setpriv --pdeathsig KILL nice -n 5 qemu-system-x86_64 -nodefaults -no-user-config -M q35 \
    -accel tcg,thread=multi,tb-size=256 -cpu max -smp "$processors" -m "$memory" -display none -no-reboot \
    -kernel "$image/vmlinuz" -initrd "$image/initrd" \
    -append "console=ttyS0 panic=-1 quiet nokaslr mitigations=off clocksource=hpet no_timer_check" -serial "file:$run/console" \
    -drive "file=$image/root.ext4,if=none,id=root,format=raw,readonly=on,file.locking=off" \
    -device virtio-blk-pci,drive=root \
    -drive "file=$run/disk,if=none,id=disk,format=raw,cache=unsafe" -device virtio-blk-pci,drive=disk \
    -device virtio-rng-pci -device virtio-serial-pci -chardev "file,id=output,path=$run/output" \
    -device virtserialport,chardev=output,name=output "${shares[@]}" </dev/null >"$run/qemu" 2>&1 &
machine="$!"

end_s="$((SECONDS + limit_s))" late=0
while kill -0 "$machine" 2>/dev/null; do
    if [ "$SECONDS" -ge "$end_s" ]; then
        late=1
        kill -KILL "$machine"
        break
    fi
    # A caller that was killed cannot say so; its child then has another parent.
    read -r _ _ _ parent _ <"/proc/$$/stat"
    [ "$parent" = "$caller" ] || exit 143
    sleep 0.1
done
wait "$machine" 2>/dev/null || true
machine=""
wait "$printer" 2>/dev/null || true
printer=""
if [ "$late" = 1 ]; then
    say "stopped after $limit_s s"
    exit 124
fi
if [ ! -s "$run/control/exit" ]; then
    say "the guest ended without an exit code; its last words:"
    tail -n 20 -- "$run/console" "$run/qemu" >&2 || true
    exit 125
fi
[ -z "${EMBERFS_GUEST_VERBOSE:-}" ] || say "ready after $(cat "$run/control/ready") s of its own time; $SECONDS s in all"
exit "$(cat "$run/control/exit")"
