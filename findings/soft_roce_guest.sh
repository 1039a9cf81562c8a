#!/bin/bash
# For the findings about RDMA in this folder, finds nothing itself: builds a virtual machine with a software RDMA device
# (rdma_rxe of Debian 12's kernel), runs the Python program on standard input there, prints what it prints, and ends
# with its exit code. Everything is thrown away. The program may use the module `soft_roce`, which is below.
#
# Needs root, and apt's packages qemu-system-x86, mmdebstrap, cpio and kmod. Takes two minutes.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
root="$folder/root"
mmdebstrap --quiet --variant=minbase --include=python3,python3-pyverbs=44.0-2,ibverbs-providers=44.0-2,iproute2,kmod \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$root"
kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')
release=${kernel#linux-image-}
(cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root "$kernel" && dpkg-deb -x "$kernel"_*.deb kernel)
depmod -b "$folder/kernel" "$release"
for module in crc32_generic rdma_rxe ib_uverbs dummy; do
    modprobe -d "$folder/kernel" -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
done | sort -u | while read -r file; do
    install -D "$file" "$root/${file#"$folder/kernel/"}"
done
cp "$folder/kernel/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$release/"
depmod -b "$root" "$release"

cat >"$root/init" <<'INIT'
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
ip link set lo up
modprobe -a crc32_generic rdma_rxe ib_uverbs
modprobe dummy numdummies=0
ip link add eth0 mtu 4200 type dummy
ip addr add 10.0.0.1/24 dev eth0
ip link set eth0 up
rdma link add rxe0 type rxe netdev eth0
echo "kernel $(uname -r), rdma_rxe; pyverbs 44.0-2, Python $(python3 -V | cut -d' ' -f2)"
python3 /program.py
echo "exit code $?"
echo o >/proc/sysrq-trigger
sleep 60
INIT
chmod +x "$root/init"
cat >"$root/program.py"
cat >"$root/soft_roce.py" <<'PYTHON'
"""Two connected queue pairs of one device, memory, completions."""

import ctypes
import mmap
import time

import pyverbs.enums as e
from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
STATUS = {number: name for name, number in vars(e).items() if name.startswith("IBV_WC_") and name.endswith(("ERR", "SUCCESS"))}


class End:
    def __init__(self):
        self.context = Context(name="rxe0")
        self.domain = PD(self.context)
        self.completions = CQ(self.context, 64)
        self.pair = QP(self.domain, QPInitAttr(
            qp_type=e.IBV_QPT_RC, scq=self.completions, rcq=self.completions, sq_sig_all=0,
            cap=QPCap(max_send_wr=16, max_recv_wr=16, max_send_sge=1, max_recv_sge=1)))
        self.bytes = mmap.mmap(-1, 65536)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.bytes))
        self.region = MR(self.domain, 65536, ACCESS, address=self.address)

    def connect(self, number, mtu=e.IBV_MTU_1024, timeout=14, retry_cnt=3, rnr_retry=1):
        gid = wait_for(lambda: next((i for i in range(8) if "ffff:0a00:0001" in str(self.context.query_gid(1, i))), None))
        a = QPAttr(port_num=1)
        a.qp_access_flags = ACCESS
        a.ah_attr = AHAttr(
            gr=GlobalRoute(dgid=self.context.query_gid(1, gid), sgid_index=gid, hop_limit=64), is_global=1, port_num=1)
        a.path_mtu, a.dest_qp_num, a.rq_psn, a.sq_psn = mtu, number, 0, 0
        a.max_dest_rd_atomic = a.max_rd_atomic = 1
        a.min_rnr_timer, a.timeout, a.retry_cnt, a.rnr_retry = 1, timeout, retry_cnt, rnr_retry
        self.pair.to_init(a)
        self.pair.to_rtr(a)
        self.pair.to_rts(a)

    def send(self, opcode, length, to=None, immediate=0):
        request = SendWR(opcode=opcode, num_sge=1, sg=[SGE(self.address, length, self.region.lkey)],
                         send_flags=e.IBV_SEND_SIGNALED, imm_data=immediate)
        if to is not None:
            request.set_wr_rdma(to.region.rkey, to.address)
        self.pair.post_send(request)

    def receive(self, length):
        self.pair.post_recv(RecvWR(num_sge=1, sg=[SGE(self.address, length, self.region.lkey)]))

    def poll(self):
        """The name of the next completion's status; None: there is none."""
        count, done = self.completions.poll(1)
        return STATUS[done[0].status] if count else None

    def wait(self):
        return wait_for(self.poll)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while (value := condition()) is None:
        if time.monotonic() > end:
            raise TimeoutError
    return value


def ends(**options):
    one, other = End(), End()
    one.connect(other.pair.qp_num, **options)
    other.connect(one.pair.qp_num, **options)
    return one, other
PYTHON
(cd "$root" && find . | cpio --quiet -o -H newc) >"$folder/initrd"
timeout 300 qemu-system-x86_64 -nodefaults -M q35 -accel tcg -cpu max -smp 2 -m 2G -display none -no-reboot \
    -kernel "$folder/kernel/boot/vmlinuz-$release" -initrd "$folder/initrd" \
    -append "console=ttyS0 panic=-1 quiet loglevel=0 rdinit=/init" -serial "file:$folder/output" </dev/null
tr -d '\r' <"$folder/output" | sed -n '/^kernel /,/^exit code /p'
code=$(tr -d '\r' <"$folder/output" | sed -n 's/^exit code //p')
exit "${code:-1}"
