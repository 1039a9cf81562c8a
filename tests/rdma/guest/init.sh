#!/bin/bash
# The guest's process 1: the host's folders at their own paths, RDMA devices, the job, its exit code.
# /control is shared with guest.sh, which writes `settings` and `job` there and reads `exit`.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
end() {
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}
trap end EXIT
. /control/settings

mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
# A disk, since tmpfs cannot do all that servers ask of one.
mount -t ext4 -o noatime /dev/vdb /tmp || exit
chmod 1777 /tmp
# Every request of 9p gets buffers of `msize`: large ones cost more than they save.
mount_shared() {
    mkdir -p "$2" && mount -t 9p -o "$3,trans=virtio,version=9p2000.L,msize=65536,cache=loose" "$1" "$2"
}
for index in "${!READ_ONLY[@]}"; do
    mount_shared "readonly$index" "${READ_ONLY[index]}" ro || exit
done
mount_shared tree "$TREE" rw || exit
mount --bind /etc/hostname /etc/hostname 2>/dev/null
hostname guest 2>/dev/null
printf '127.0.0.1 localhost guest\n' >/etc/hosts

# Without crc32_generic the device is refused, and nothing pulls that module in.
modprobe -qa crc32_generic crc32-pclmul virtio_rng fuse
modprobe -a rdma_rxe ib_uverbs rdma_ucm || exit
ip link set lo up
add_address() {
    ip link set "$1" up && ip addr add "$2/24" dev "$1"
}
if [ "$NICS" = 1 ]; then
    modprobe dummy numdummies=0
    ip link add eth0 mtu "$MTU" type dummy && add_address eth0 10.77.0.1
else
    # Pairs of devices, each joined by a cable of its own and in a subnet of its own. The kernel would loop back what
    # goes from one of its addresses to another; these rules make it take the cable.
    modprobe veth
    sysctl -qw net.ipv4.conf.all.rp_filter=0
    ip rule add pref 100 lookup local
    ip rule del pref 0
    for ((n = 0; n < NICS; n += 2)); do
        ip link add "eth$n" mtu "$MTU" type veth peer name "eth$((n + 1))" mtu "$MTU"
        for side in 0 1; do
            device="eth$((n + side))" own="10.77.$((n / 2)).$((side + 1))" other="10.77.$((n / 2)).$((2 - side))"
            add_address "$device" "$own"
            sysctl -qw "net.ipv4.conf.$device.accept_local=1" "net.ipv4.conf.$device.rp_filter=0" \
                "net.ipv4.conf.$device.arp_ignore=1" "net.ipv4.conf.$device.arp_announce=2"
            ip route add "$other" dev "$device" src "$own" table "$((101 + n + side))"
            ip rule add pref "$((10 + n + side))" iif lo from "$own" to "$other" lookup "$((101 + n + side))"
            ip neigh replace "$other" lladdr "$(cat "/sys/class/net/eth$((n + 1 - side))/address")" dev "$device"
        done
    done
fi
for ((n = 0; n < NICS; n++)); do
    rdma link add "rxe$n" type rxe netdev "eth$n" || exit
    # The address gets its GID a moment later.
    for ((tries = 0; tries < 200; tries++)); do
        [ "$(tr -d 0: <"/sys/class/infiniband/rxe$n/ports/1/gids/1")" != "" ] && break
        sleep 0.05
    done
done

for port in /sys/class/virtio-ports/*/name; do
    [ "$(cat "$port")" = output ] && output="/dev/$(basename "$(dirname "$port")")"
done
cut -d' ' -f1 /proc/uptime >/control/ready
# A shell of its own runs the job: process 1 waits for whatever that leaves.
/bin/bash /control/job <"/dev/null" >"$output" 2>&1
code=$?
sync
echo "$code" >/control/exit
