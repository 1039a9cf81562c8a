#!/bin/busybox sh
# The guest's first process: modules, the read-only root under a throw-away layer, the host's control folder; then that
# folder's init.sh takes over.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
while read -r module; do $b insmod "/modules/$module" || echo "cannot load $module"; done </modules/order
$b mount -t tmpfs space /space
$b mkdir /space/upper /space/work
$b mount -t ext4 -o ro /dev/vda /lower &&
    $b mount -t overlay -o lowerdir=/lower,upperdir=/space/upper,workdir=/space/work root /new &&
    $b mount -t 9p -o trans=virtio,version=9p2000.L,msize=65536,cache=none control /new/control || {
    echo "no root file system"
    $b poweroff -f
}
for folder in dev proc sys; do $b mount -o move /$folder /new/$folder; done
exec $b switch_root /new /control/init.sh
