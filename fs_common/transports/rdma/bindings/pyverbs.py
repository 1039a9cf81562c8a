"""Verbs by pyverbs, the binding that comes with rdma-core; releases 44 (Debian 12) and 59 are tested.

What of it shapes this module:

* No call of it releases the interpreter; so descriptors are non-blocking, and nothing is called that waits.
* The destructors of SGE, SendWR and RecvWR are misspelt, so they never run, and their `close` frees again each time.
  They are made once for each device (sends) or slot (receives), refilled, and closed once.
* A send request's list of entries can be pointed at an SGE of ours, and requests can be linked: 32 of them, linked for
  good, are one chain, and the last n of them are a chain of n. A receive request can be pointed nowhere else, so there
  is one for each slot, and each is posted by a call of its own.
* 44 tells the descriptor neither of a completion channel nor of a device's events: see `descriptors`. No release tells
  which port or queue pair an event is of.
* A dma-buf could be registered only at addresses that count from its start, not at those that its owner knows: refused.
"""

import errno
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ, CompChannel
from pyverbs.device import Context, get_device_list
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsError
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

from fs_common.transports.rdma.bindings import numbers, sysfs
from fs_common.transports.rdma.bindings.descriptors import event_opened_by, opened_by
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

CHAIN = 32
"""Send requests that one call posts."""
CHANNEL_TRIES = 16
_SEND = Kind.SEND


def make() -> Binding:
    return Pyverbs()


def _error(what: str, error: PyverbsError) -> VerbsError:
    number = abs(getattr(error, "error_code", -1))
    return VerbsError(f"{what}: {os.strerror(number)}", number) if number > 1 else VerbsError(f"{what}: {error}")


class Pyverbs:
    name = "pyverbs"

    def devices(self) -> list[Device]:
        try:
            names = sorted(device.name.decode() for device in get_device_list())
        except PyverbsError:
            # A kernel without RDMA.
            return []
        found = []
        for name in names:
            try:
                context = Context(name=name)
            except PyverbsError:
                continue
            try:
                found.append(_device(context, name))
            except PyverbsError:
                continue
            finally:
                context.close()
        return found

    def open(self, name: str) -> "DeviceContext":
        try:
            if name not in [device.name.decode() for device in get_device_list()]:
                raise VerbsError(f"there is no RDMA device {name}", errno.ENODEV)
            return DeviceContext(name)
        except PyverbsError as error:
            raise _error(f"the RDMA device {name} cannot be opened", error) from error


class DeviceContext:
    def __init__(self, name: str) -> None:
        self.name = name
        self._made = Made(self._end)
        self._context, events, devices = opened_by(lambda: Context(name=name))
        self._domain = PD(self._context)
        self._made.own += [self._context, self._domain]
        self._made.descriptors.update(events, devices)
        if len(events) != 1:
            self.close()
            raise VerbsError(f"the RDMA device {name}: its events have {len(events)} descriptors", errno.EIO)
        self._events = events[0]
        os.set_blocking(self._events, False)
        self._chain = _Chain()

    def device(self) -> Device:
        self._made.check_open()
        try:
            return _device(self._context, self.name)
        except PyverbsError as error:
            raise _error(f"the RDMA device {self.name} does not answer", error) from error

    def register(self, address: int, length: int, access: Access, dmabuf: DmaBuf | None = None) -> "MemoryRegion":
        self._made.check_open()
        if address <= 0:
            raise VerbsError("there is no memory at address 0", errno.EFAULT)
        if dmabuf is not None:
            raise VerbsError(
                "pyverbs cannot register a dma-buf at its addresses: pip install 'emberfs[rdma]', and set "
                "EMBERFS_RDMA_BINDING=ibverbs",
                errno.EOPNOTSUPP,
            )
        try:
            raw = MR(self._domain, length, int(access), address=address)
            return MemoryRegion(self._made, raw, address, length)
        except PyverbsError as error:
            raise _error(f"{length} bytes cannot be registered with {self.name}", error) from error

    def completion_queue(self, depth: int) -> "Completions":
        self._made.check_open()
        try:
            return Completions(self._made, self._context, depth)
        except PyverbsError as error:
            raise _error(f"{self.name} has no completion queue of {depth} entries", error) from error

    def queue_pair(self, completions: CompletionQueue, capacity: Capacity) -> "Pair":
        self._made.check_open()
        assert isinstance(completions, Completions)
        completions.check_open()
        try:
            return Pair(self._made, self._domain, self._chain, completions, capacity)
        except PyverbsError as error:
            raise _error(f"{self.name} has no queue pair of {capacity}", error) from error

    def async_fileno(self) -> int:
        self._made.check_open()
        return self._events

    def take_async_events(self) -> list[AsyncEvent]:
        self._made.check_open()
        taken: list[AsyncEvent] = []
        while True:
            try:
                event = self._context.get_async_event()
            except PyverbsError:
                return taken
            taken.append(numbers.EVENTS.get(int(event.event_type), AsyncEvent.OTHER))
            # At once: closing what it is of would wait for it, with the interpreter held.
            event.ack()

    def counts(self) -> Counts:
        return self._made.counts()

    def close(self) -> None:
        self._made.close_all()

    def _end(self) -> None:
        self._chain.close()
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
        self._channel, self._descriptor = _channel(context)
        try:
            self.raw = CQ(context, depth, None, self._channel)
        except PyverbsError:
            self._channel.close()
            raise
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
        try:
            self.raw.req_notify(solicited)
        except (PyverbsError, AttributeError) as error:
            raise self._closed_or("a completion queue cannot be armed", error) from error
        self._arms += 1

    def take_events(self) -> int:
        self.check_open()
        events = 0
        while events < self._arms:
            try:
                self._channel.get_cq_event(self.raw)
            except PyverbsError:
                # Nothing there: the last of them may still come.
                self._arms = events + 1
                break
            events += 1
        self._arms -= events
        if events:
            self.raw.ack_events(events)
        return events

    def poll(self, most: int) -> list[Completion]:
        try:
            _, taken = self.raw.poll(most)
        except (PyverbsError, AttributeError) as error:
            raise self._closed_or("a completion queue cannot be polled", error) from error
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

    def _closed_or(self, what: str, error: Exception) -> VerbsError:
        self.check_open()
        if not isinstance(error, PyverbsError):
            raise error
        return _error(what, error)


class Pair(Part):
    def __init__(self, made: Made, domain: Any, chain: "_Chain", completions: Completions, capacity: Capacity) -> None:
        self._made = made
        self._chain = chain
        self._completions = completions
        self._receives_most = 4 * capacity.receives
        sizes = QPCap(
            max_send_wr=capacity.sends,
            max_recv_wr=capacity.receives,
            max_send_sge=1,
            max_recv_sge=1,
            max_inline_data=capacity.inline_bytes,
        )
        queue = completions.raw
        self.raw = QP(domain, QPInitAttr(qp_type=numbers.RELIABLE, scq=queue, rcq=queue, cap=sizes, sq_sig_all=0))
        self.number: int = self.raw.qp_num
        self.inline_bytes: int = self.raw.query(numbers.Attribute.CAPACITY)[1].cap.max_inline_data
        self._slots: dict[tuple[int, int, int], tuple[Any, Any]] = {}
        """Receive requests by address, length and key, with their entry."""
        completions.pairs[id(self)] = self
        made.pairs[id(self)] = self

    def connect(self, path: Path, remote: RemoteEnd) -> None:
        self.check_open()
        infiniband = path.gid.kind is GidKind.INFINIBAND
        attributes = QPAttr(port_num=path.port)
        attributes.qp_access_flags = int(Access.LOCAL_WRITE | path.other_may)
        route = GlobalRoute(dgid=GID(_words(remote.gid)), sgid_index=path.gid.table_index, hop_limit=numbers.HOPS)
        # Within an InfiniBand subnet the local identifier is the address, on Ethernet the GID.
        attributes.ah_attr = AHAttr(gr=route, is_global=1, port_num=path.port, dlid=remote.lid if infiniband else 0)
        attributes.path_mtu = numbers.MTU_CODES[path.mtu_bytes]
        attributes.dest_qp_num = remote.number
        attributes.rq_psn = remote.psn
        attributes.max_dest_rd_atomic = path.reads_served
        attributes.min_rnr_timer = path.persistence.receiver_timer
        attributes.sq_psn = path.psn
        attributes.timeout = path.persistence.timeout
        attributes.retry_cnt = path.persistence.retries
        attributes.rnr_retry = path.persistence.receiver_retries
        attributes.max_rd_atomic = path.reads_out
        try:
            self.raw.to_init(attributes)
            self.raw.to_rtr(attributes)
            self.raw.to_rts(attributes)
        except PyverbsError as error:
            raise _error(f"queue pair {self.number} cannot be connected to {remote.number}", error) from error

    def post(self, works: Sequence[Work]) -> None:
        if self.raw is None:
            raise VerbsError("the queue pair is closed", errno.EBADF)
        try:
            self._chain.post(self.raw, works)
        except PyverbsError as error:
            raise _error(f"queue pair {self.number} takes no more work", error) from error

    def receive(self, receives: Sequence[Receive]) -> None:
        self.check_open()
        try:
            for number, address, length, lkey in receives:
                slot = self._slots.get((address, length, lkey))
                if slot is None:
                    slot = self._new_slot(address, length, lkey)
                slot[0].wr_id = number
                self.raw.post_recv(slot[0])
        except PyverbsError as error:
            raise _error(f"queue pair {self.number} takes no more receives", error) from error

    def fail(self) -> None:
        if self.raw is None:
            return
        try:
            self.raw.modify(QPAttr(qp_state=numbers.FAILED), numbers.Attribute.STATE)
        except PyverbsError as error:
            raise _error(f"queue pair {self.number} cannot be ended", error) from error

    def close(self) -> None:
        self._made.close(self._made.pairs, self)

    def end(self) -> None:
        del self._completions.pairs[id(self)]
        self.raw.close()
        self._drop_slots()

    def raws(self) -> list[object]:
        return [self.raw]

    def check_open(self) -> None:
        if self.raw is None:
            raise VerbsError("the queue pair is closed", errno.EBADF)

    def _new_slot(self, address: int, length: int, lkey: int) -> tuple[Any, Any]:
        if len(self._slots) >= self._receives_most:
            # Slots that move: what was posted has been copied.
            self._drop_slots()
        entry = SGE(address, length, lkey)
        slot = self._slots[address, length, lkey] = (RecvWR(num_sge=1, sg=[entry]), entry)
        return slot

    def _drop_slots(self) -> None:
        slots, self._slots = self._slots, {}
        for request, entry in slots.values():
            request.close()
            entry.close()


class _Chain:
    """Send requests of one device, used for all its queue pairs: posting copies them."""

    def __init__(self) -> None:
        self._entries = [SGE(0, 0, 0) for _ in range(CHAIN)]
        self._requests = [SendWR(num_sge=1, sg=[entry]) for entry in self._entries]
        self._filled = list(zip(self._requests, self._entries, strict=True))
        for request, entry in self._filled:
            # Frees the copy of the entry that the request has made; from now on it reads the entry itself.
            request.close()
            request.sg_list = entry
        for request, following in pairwise(self._requests):
            request.next_wr = following

    def post(self, pair: Any, works: Sequence[Work]) -> None:
        for begin in range(0, len(works), CHAIN):
            part = works[begin : begin + CHAIN] if len(works) > CHAIN else works
            first = CHAIN - len(part)
            for (request, entry), work in zip(self._filled[first:], part, strict=True):
                kind, number, address, length, lkey, remote_address, rkey, signalled, inline, solicited = work
                entry.addr = address
                entry.length = length
                entry.lkey = lkey
                request.wr_id = number
                request.opcode = kind
                request.send_flags = signalled * SIGNALLED | inline * INLINE | solicited * SOLICITED
                if kind is not _SEND:
                    request.set_wr_rdma(rkey, remote_address)
            pair.post_send(self._requests[first])

    def close(self) -> None:
        entries, self._entries = self._entries, []
        for entry in entries:
            entry.close()


def _channel(context: Any) -> tuple[Any, int]:
    for _ in range(CHANNEL_TRIES):
        channel, descriptor = event_opened_by(lambda: CompChannel(context))
        descriptor = getattr(channel, "fd", descriptor)
        if descriptor is not None:
            os.set_blocking(descriptor, False)
            return channel, descriptor
        channel.close()
    raise VerbsError(
        "a completion channel's descriptor is not found: other threads open files all the time", errno.EAGAIN
    )


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
        reads_max=min(limits.max_qp_rd_atom, limits.max_qp_init_rd_atom),
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


def _words(gid: bytes) -> str:
    text = gid.hex()
    return ":".join(text[index : index + 4] for index in range(0, 32, 4))
