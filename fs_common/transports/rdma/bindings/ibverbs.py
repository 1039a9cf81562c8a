"""Verbs by PyPI's `ibverbs`, a wheel that opens the system's libibverbs, of any release.

What of it shapes this module:

* Its scatter-gather entries cannot be refilled: each work costs a new one. Requests are made once for each device and
  used again; one call posts any number of them.
* It tells no GID's kind, nor how a port's table ends: both are read from /sys.
* Its device has one number for READs out and served.
* Its calls release the interpreter; descriptors are non-blocking all the same.
"""

import errno
import os
from collections.abc import Sequence
from typing import Any

import ibverbs
from ibverbs import SGE, QPInfo, RecvWR, SendWR

from fs_common.transports.rdma.bindings import numbers, sysfs
from fs_common.transports.rdma.bindings.descriptors import opened_by
from fs_common.transports.rdma.bindings.made import Made, Part
from fs_common.transports.rdma.bindings.numbers import INLINE, SIGNALLED, SOLICITED
from fs_common.transports.rdma.verbs import (
    Access,
    AsyncEvent,
    Binding,
    Capacity,
    Completion,
    CompletionQueue,
    Counts,
    Device,
    DmaBuf,
    GidKind,
    Kind,
    Path,
    Port,
    Receive,
    RemoteEnd,
    VerbsError,
    Work,
)

_SEND = Kind.SEND


def make() -> Binding:
    return Ibverbs()


def _error(what: str, error: Exception) -> VerbsError:
    number = getattr(error, "errno", None)
    return VerbsError(f"{what}: {os.strerror(number)}" if number else f"{what}: {error}", number or None)


class Ibverbs:
    name = f"ibverbs {ibverbs.__version__}"

    def devices(self) -> list[Device]:
        found = []
        for device in sorted(_listed(), key=lambda device: device.name):
            try:
                context = device.open()
            except ibverbs.VerbsError:
                continue
            try:
                found.append(_device(context, device.name))
            except ibverbs.VerbsError:
                continue
            finally:
                context.close()
        return found

    def open(self, name: str) -> "DeviceContext":
        device = next((device for device in _listed() if device.name == name), None)
        if device is None:
            raise VerbsError(f"there is no RDMA device {name}", errno.ENODEV)
        try:
            return DeviceContext(device)
        except ibverbs.VerbsError as error:
            raise _error(f"the RDMA device {name} cannot be opened", error) from error


class DeviceContext:
    def __init__(self, device: Any) -> None:
        self.name: str = device.name
        self._context, events, devices = opened_by(device.open)
        self._domain = self._context.alloc_pd()
        self._made = Made(self._end)
        self._made.own += [self._context, self._domain]
        self._made.descriptors.update(events, devices)
        os.set_blocking(self._context.async_fd, False)
        self._requests: list[Any] = []
        """Send requests of all its queue pairs: posting copies them."""

    def device(self) -> Device:
        self._made.check_open()
        try:
            return _device(self._context, self.name)
        except ibverbs.VerbsError as error:
            raise _error(f"the RDMA device {self.name} does not answer", error) from error

    def register(self, address: int, length: int, access: Access, dmabuf: DmaBuf | None = None) -> "MemoryRegion":
        self._made.check_open()
        try:
            if dmabuf is None:
                raw = self._domain.reg_mr(address, length, int(access))
            else:
                raw = self._domain.reg_dmabuf_mr(dmabuf.offset, length, address, dmabuf.descriptor, int(access))
            return MemoryRegion(self._made, raw, address, length)
        except (ibverbs.VerbsError, ValueError, RuntimeError) as error:
            raise _error(f"{length} bytes cannot be registered with {self.name}", error) from error

    def completion_queue(self, depth: int) -> "Completions":
        self._made.check_open()
        try:
            return Completions(self._made, self._context, depth)
        except (ibverbs.VerbsError, ValueError) as error:
            raise _error(f"{self.name} has no completion queue of {depth} entries", error) from error

    def queue_pair(self, completions: CompletionQueue, capacity: Capacity) -> "Pair":
        self._made.check_open()
        assert isinstance(completions, Completions)
        completions.check_open()
        try:
            return Pair(self._made, self._domain, self._requests, completions, capacity)
        except (ibverbs.VerbsError, ValueError) as error:
            raise _error(f"{self.name} has no queue pair of {capacity}", error) from error

    def async_fileno(self) -> int:
        self._made.check_open()
        descriptor: int = self._context.async_fd
        return descriptor

    def take_async_events(self) -> list[AsyncEvent]:
        self._made.check_open()
        taken: list[AsyncEvent] = []
        while True:
            try:
                event = self._context.get_async_event()
            except ibverbs.VerbsError:
                return taken
            taken.append(numbers.EVENTS.get(int(event.event_type), AsyncEvent.OTHER))
            # At once: closing what it is of would wait for it.
            self._context.ack_async_event(event)

    def counts(self) -> Counts:
        return self._made.counts()

    def close(self) -> None:
        self._made.close_all()

    def _end(self) -> None:
        self._domain.close()
        self._context.close()


class MemoryRegion(Part):
    def __init__(self, made: Made, raw: Any, address: int, length: int) -> None:
        self._made = made
        self.raw = raw
        self.address = address
        self.length = length
        self.lkey: int = raw.lkey
        self.rkey: int = raw.rkey
        made.regions[id(self)] = self

    def close(self) -> None:
        self._made.close(self._made.regions, self)

    def end(self) -> None:
        self.raw.close()

    def raws(self) -> list[object]:
        return [self.raw]


class Completions(Part):
    def __init__(self, made: Made, context: Any, depth: int) -> None:
        self._made = made
        self._channel = context.create_comp_channel()
        try:
            self.raw = context.create_cq(depth, channel=self._channel)
        except BaseException:
            self._channel.close()
            raise
        self._descriptor: int = self._channel.fd
        os.set_blocking(self._descriptor, False)
        self._arms = 0
        """Notifications asked for since the last that came; so many may be there, mostly one."""
        made.descriptors.add(self._descriptor)
        self.pairs: dict[int, Pair] = {}
        """That report into it and are not closed."""
        made.queues[id(self)] = self

    def fileno(self) -> int:
        self.check_open()
        return self._descriptor

    def arm(self, solicited: bool = False) -> None:
        self.check_open()
        try:
            self.raw.req_notify(solicited)
        except ibverbs.VerbsError as error:
            raise _error("a completion queue cannot be armed", error) from error
        self._arms += 1

    def take_events(self) -> int:
        self.check_open()
        events = 0
        while events < self._arms:
            try:
                self._channel.get_cq_event()
            except ibverbs.VerbsError:
                # Nothing there: the last of them may still come.
                self._arms = events + 1
                break
            events += 1
        self._arms -= events
        if events:
            self.raw.ack_events(events)
        return events

    def poll(self, most: int) -> list[Completion]:
        if self.raw is None:
            raise VerbsError("the completion queue is closed", errno.EBADF)
        try:
            taken = self.raw.poll(most)
        except ibverbs.VerbsError as error:
            raise _error("a completion queue cannot be polled", error) from error
        return [numbers.completion(one.wr_id, one.status, one.opcode, one.byte_len, one.qp_num) for one in taken]

    def close(self) -> None:
        for pair in list(self.pairs.values()):
            pair.close()
        self._made.close(self._made.queues, self)

    def end(self) -> None:
        self._made.descriptors.discard(self._descriptor)
        self.raw.close()
        self._channel.close()

    def raws(self) -> list[object]:
        return [self.raw, self._channel]

    def check_open(self) -> None:
        if self.raw is None:
            raise VerbsError("the completion queue is closed", errno.EBADF)


class Pair(Part):
    def __init__(
        self, made: Made, domain: Any, requests: list[Any], completions: Completions, capacity: Capacity
    ) -> None:
        self._made = made
        self._requests = requests
        self._completions = completions
        self._slots_most = 4 * capacity.receives
        self._slots: dict[tuple[int, int, int], Any] = {}
        """Receive requests by address, length and key."""
        self.raw = domain.create_qp(
            ibverbs.QPInitAttr(
                send_cq=completions.raw,
                recv_cq=completions.raw,
                qp_type=numbers.RELIABLE,
                max_send_wr=capacity.sends,
                max_recv_wr=capacity.receives,
                max_inline_data=capacity.inline_bytes,
            )
        )
        self.number: int = self.raw.qp_num
        self.inline_bytes: int = self.raw.query()[1].max_inline_data
        completions.pairs[id(self)] = self
        made.pairs[id(self)] = self

    def connect(self, path: Path, remote: RemoteEnd) -> None:
        self._check_open()
        mtu = numbers.MTU_CODES[path.mtu_bytes]
        # Within an InfiniBand subnet the local identifier is the address, on Ethernet the GID.
        lid = remote.lid if path.gid.kind is GidKind.INFINIBAND else 0
        other = QPInfo(qp_num=remote.number, psn=remote.psn, lid=lid, gid=remote.gid, port=path.port, mtu=mtu)
        access = int(Access.LOCAL_WRITE | path.other_may)
        tries = path.persistence
        try:
            self.raw.to_init(path.port, access)
            self.raw.to_rtr(
                other,
                sgid_index=path.gid.table_index,
                mtu=mtu,
                hop_limit=numbers.HOPS,
                min_rnr_timer=tries.receiver_timer,
                max_dest_rd_atomic=path.reads_served,
            )
            self.raw.to_rts(
                path.psn,
                timeout=tries.timeout,
                retry_cnt=tries.retries,
                rnr_retry=tries.receiver_retries,
                max_rd_atomic=path.reads_out,
            )
        except (ibverbs.VerbsError, ValueError) as error:
            raise _error(f"queue pair {self.number} cannot be connected to {remote.number}", error) from error

    def post(self, works: Sequence[Work]) -> None:
        if self.raw is None:
            raise VerbsError("the queue pair is closed", errno.EBADF)
        requests = self._requests
        while len(requests) < len(works):
            requests.append(SendWR())
        for request, work in zip(requests, works, strict=False):
            kind, number, address, length, lkey, remote_address, rkey, signalled, inline, solicited = work
            request.wr_id = number
            request.sg_list = [SGE(address, length, lkey)]
            request.opcode = kind
            request.send_flags = signalled * SIGNALLED | inline * INLINE | solicited * SOLICITED
            if kind is not _SEND:
                request.remote_addr = remote_address
                request.rkey = rkey
        try:
            self.raw.post_send(requests[: len(works)])
        except ibverbs.VerbsError as error:
            raise _error(f"queue pair {self.number} takes no more work", error) from error

    def receive(self, receives: Sequence[Receive]) -> None:
        self._check_open()
        chain: dict[tuple[int, int, int], Any] = {}
        try:
            for number, address, length, lkey in receives:
                slot = address, length, lkey
                request = self._slots.get(slot)
                if request is None:
                    if len(self._slots) >= self._slots_most:
                        self._slots.clear()
                    request = self._slots[slot] = RecvWR(sg_list=[SGE(address, length, lkey)])
                elif slot in chain:
                    # The same slot twice: its request has one id at a time.
                    self.raw.post_recv(list(chain.values()))
                    chain.clear()
                request.wr_id = number
                chain[slot] = request
            self.raw.post_recv(list(chain.values()))
        except ibverbs.VerbsError as error:
            raise _error(f"queue pair {self.number} takes no more receives", error) from error

    def fail(self) -> None:
        if self.raw is None:
            return
        try:
            self.raw.modify(int(numbers.Attribute.STATE), qp_state=numbers.FAILED)
        except ibverbs.VerbsError as error:
            raise _error(f"queue pair {self.number} cannot be ended", error) from error

    def close(self) -> None:
        self._made.close(self._made.pairs, self)

    def end(self) -> None:
        del self._completions.pairs[id(self)]
        self.raw.close()

    def raws(self) -> list[object]:
        return [self.raw]

    def _check_open(self) -> None:
        if self.raw is None:
            raise VerbsError("the queue pair is closed", errno.EBADF)


def _listed() -> list[Any]:
    try:
        return list(ibverbs.get_device_list())
    except ibverbs.VerbsError:
        # A kernel without RDMA.
        return []


def _device(context: Any, name: str) -> Device:
    limits = context.query_device()
    return Device(
        name=name,
        ports=tuple(_port(context, name, number) for number in range(1, limits.phys_port_cnt + 1)),
        queue_pairs_max=limits.max_qp,
        work_requests_max=limits.max_qp_wr,
        completions_max=limits.max_cqe,
        regions_max=limits.max_mr,
        region_bytes_max=limits.max_mr_size,
        reads_max=limits.max_qp_rd_atom,
    )


def _port(context: Any, name: str, number: int) -> Port:
    port = context.query_port(number)
    return Port(
        number=number,
        state=numbers.port_state(int(port.state)),
        mtu_bytes=numbers.MTU_BYTES.get(int(port.active_mtu), 0),
        lid=port.lid,
        message_bytes_max=port.max_msg_sz,
        gids=sysfs.gids(name, number, int(port.link_layer) == numbers.INFINIBAND_LINK),
    )
