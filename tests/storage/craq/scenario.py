"""Stories of a chain, told and checked: a small language that drives real replicas, one step at a time.

A file in `scenarios/` is a list of blocks: commands, `----`, and what happens. Comments begin with `#`. Nothing happens
by itself: stores end what they were asked, and messages arrive, when the story says so. `python -m
tests.storage.craq.scenario FILE ...` writes what happens now into the files.

    chain A B C [syncing D]   the manager's chain from now on, under the next version; nobody has heard of it
    hear A B ...              these daemons hear of the newest chain (`all`: those that run)
    write NODE CHUNK WORD [SEQUENCE]   a client's update: it adds a word to the chunk; a SEQUENCE again is a retry
    remove NODE CHUNK         a client's removal
    read NODE CHUNK
    store NODE ...            what the store was asked so far is done
    arrive NODE ...           what was sent to it so far arrives
    lose NODE ...             what was sent to it so far is lost
    late NODE                 what was sent to it so far will arrive at `arrive late`
    timeout NODE              its attempts that were not answered are over
    again NODE                its attempts that were refused are made again
    settle NODE               it drives what is pending to its end, as after a start
    push NODE CHUNK           the tail sends what is committed to the syncing replica
    run                       stores and messages go on until nothing is left to do
    crash NODE, start NODE
    show CHUNK
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fs_common.errors import Code
from fs_common.records.routing import Chain, ChainTarget, PublicState, Routing
from fs_common.records.storage import UpdateKind
from fs_storage.craq.apportion import Serve, Told, serve
from fs_storage.craq.operation import SENDING, Duty, Failure, Operation, Step
from fs_storage.craq.position import Position, position_of
from fs_storage.target import Target
from tests.storage.craq.model_store import Content, ModelStore

FOLDER = Path(__file__).parent / "scenarios"
_CLIENT = b"c" * 16


class Membership:
    routing: Routing | None = None

    def lease_valid(self) -> bool:
        return True


class Store(ModelStore):
    """With what `Target` asks a store."""

    identity = bytes(16)
    opening = incarnation = 1
    whole = True
    position = recovered = 0


@dataclass
class Message:
    sender: str
    receiver: str
    words: str
    arrive: Callable[[], None]


@dataclass
class Node:
    name: str
    number: int
    store: Store
    target: Target | None = None
    """None: its process is down."""
    stores: list[Operation] = field(default_factory=list)
    """Given to the store, and not done."""
    attempts: dict[int, tuple[Operation, Position | None]] = field(default_factory=dict)
    """Sent to a successor, by number, and not answered."""
    refused: list[tuple[Operation, Position | None]] = field(default_factory=list)
    """To be sent again."""
    wait_for_version: list[tuple[str, int]] = field(default_factory=list)
    """Who wants to know when it acts at a chain version."""


def _words(content: Content) -> str:
    return "nothing" if content is None else "+".join(content)


class Story:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.chain = Chain(1, 0, [])
        self.messages: list[Message] = []
        self.late: list[Message] = []
        self.lines: list[str] = []
        self._count = 0
        self._sequences = 0

    # -- the language ----------------------------------------------------------------------------------------------

    def command(self, line: str) -> None:
        verb, *words = line.split()
        getattr(self, f"do_{verb}")(*words)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def do_chain(self, *names: str) -> None:
        serving, _, syncing = " ".join(names).partition("syncing")
        members = []
        for name, state in [(name, PublicState.SERVING) for name in serving.split()] + [
            (name, PublicState.SYNCING) for name in syncing.split()
        ]:
            if name not in self.nodes:
                self.nodes[name] = Node(name, len(self.nodes) + 1, Store())
                self.do_start(name)
            number = self.nodes[name].number
            members.append(ChainTarget(number, number, state))
        self.chain = Chain(1, self.chain.version + 1, members)
        self.say(f"chain version {self.chain.version}: {' '.join(names)}")

    def do_hear(self, *names: str) -> None:
        for node in self._running(names):
            target = node.target
            assert target is not None
            target.place(position_of(self.chain, node.number))
            position = target.position
            if position is None:
                self.say(f"{node.name} is not on the chain")
            else:
                role = "syncing" if position.syncing else "tail" if position.is_tail else "serving"
                self.say(
                    f"{node.name} acts at version {position.version}, {role}{'' if target.ready else ', not ready'}"
                )
            self._execute(node)
            self._agree(node)
            for asker, version in list(node.wait_for_version):
                self._tell_version(node, asker, version)

    def do_write(self, name: str, chunk: str, word: str, sequence: str = "") -> None:
        self._client(name, chunk, UpdateKind.WRITE, word, sequence)

    def do_remove(self, name: str, chunk: str, sequence: str = "") -> None:
        self._client(name, chunk, UpdateKind.REMOVE, None, sequence)

    def do_read(self, name: str, chunk: str) -> None:
        node = self.nodes[name]
        target = node.target
        if target is None or not target.serves:
            self.say(
                f"{name} does not answer readers{'' if target is None else ': ' + self._name_all(target.why_not())}"
            )
            return
        position = target.position
        assert position is not None
        key = chunk.encode()
        committed, pending = self._versions(node, key)
        if key not in target.uncertain:
            self.say(f"{name}: {chunk} is {_words(committed[1])}")
            return
        tail = self._node(position.tail.target)
        there = tail.target
        if there is None or not there.serves or there.position is None or there.position.version != position.version:
            self.say(f"{name} has {chunk} v{pending[0]} pending, and {tail.name} cannot say what is committed")
            return
        state = tail.store.state(key)
        told = Told(state.version if state is not None else 0, tail.store.digest(key))
        digests = node.store.digest(key), node.store.digest(key, pending=True)
        left = node.store.pending_update(key)
        choice = serve(committed[0], node.store.state(key), digests, told, removing=left is not None and left.removed)
        assert choice in (Serve.COMMITTED, Serve.PENDING), choice
        content = committed[1] if choice is Serve.COMMITTED else pending[1]
        self.say(f"{name}: {chunk} is {_words(content)}, as {tail.name} has committed v{told.version}")

    def do_store(self, *names: str) -> None:
        for node in self._running(names):
            due, node.stores = node.stores, []
            for operation in due:
                self._store(node, operation)

    def do_arrive(self, *names: str) -> None:
        if names == ("late",):
            due, self.late = self.late, []
        else:
            due = [message for message in self.messages if message.receiver in names]
            self.messages = [message for message in self.messages if message not in due]
        for message in due:
            if self._exists(message.receiver):
                self.say(f"{message.sender} -> {message.receiver}: {message.words}")
                message.arrive()

    def do_lose(self, *names: str) -> None:
        for message in [message for message in self.messages if message.receiver in names]:
            self.say(f"{message.sender} -> {message.receiver}: {message.words}, lost")
            self.messages.remove(message)

    def do_late(self, name: str) -> None:
        for message in [message for message in self.messages if message.receiver == name]:
            self.say(f"{message.sender} -> {message.receiver}: {message.words}, on its way")
            self.messages.remove(message)
            self.late.append(message)

    def do_timeout(self, name: str) -> None:
        node = self.nodes[name]
        assert node.target is not None
        due, node.attempts = list(node.attempts.values()), {}
        for operation, asked in due:
            node.target.refresh()
            node.target.replica.forward_failed(operation, Failure(Code.TIMED_OUT, "no answer"), asked)
            self._execute(node)

    def do_again(self, name: str) -> None:
        node = self.nodes[name]
        assert node.target is not None
        due, node.refused = node.refused, []
        for operation, asked in due:
            node.target.refresh()
            if node.target.replica.try_again(operation, asked):
                self._send(node, operation)
            self._execute(node)

    def do_settle(self, name: str) -> None:
        node = self.nodes[name]
        assert node.target is not None
        for chunk in sorted(node.target.replica.unsettled):
            self._submit(node, Operation(chunk, Duty.SETTLE, chain_version=self._version(node)), lambda operation: None)
        self._agree(node)

    def do_push(self, name: str, chunk: str) -> None:
        node = self.nodes[name]

        def done(operation: Operation) -> None:
            self.say(f"{name}: {chunk} is pushed" if operation.failure is None else f"{name}: {operation.failure}")

        self._submit(node, Operation(chunk.encode(), Duty.PUSH, chain_version=self._version(node)), done)

    def do_run(self) -> None:
        while True:
            busy = [node.name for node in self.nodes.values() if node.stores and node.target is not None]
            if busy:
                self.do_store(*busy)
            elif self.messages:
                self.do_arrive(self.messages[0].receiver)
            else:
                return

    def do_crash(self, name: str) -> None:
        node = self.nodes[name]
        node.target = None
        for waiting in (node.stores, node.attempts, node.refused, node.wait_for_version):
            waiting.clear()
        self.messages = [message for message in self.messages if name not in (message.receiver, message.sender)]

    def do_start(self, name: str) -> None:
        node = self.nodes[name]
        node.target = Target(node.number, node.store, Membership())  # type: ignore[arg-type]
        node.target.admitted = True

    def do_show(self, chunk: str) -> None:
        for node in self.nodes.values():
            committed, pending = self._versions(node, chunk.encode())
            line = f"{node.name}: " + (f"v{committed[0]} {_words(committed[1])}" if committed[0] else "nothing")
            if pending[0]:
                line += f", pending v{pending[0]} {_words(pending[1])}"
            self.say(line)

    # -- clients -------------------------------------------------------------------------------------------------------

    def _client(self, name: str, chunk: str, kind: UpdateKind, argument: object, sequence: str) -> None:
        self._sequences = number = int(sequence) if sequence else self._sequences + 1

        def done(operation: Operation) -> None:
            ended = f"stored as v{operation.version}" if operation.failure is None else operation.failure.code.name
            self.say(f"{name} -> client: update {number} is {ended}")

        node = self.nodes[name]
        operation = Operation(
            chunk.encode(), kind, chain_version=self._version(node), client=_CLIENT, channel=1, sequence=number
        )
        self._submit(node, operation, done, argument)

    # -- the shell of the core ---------------------------------------------------------------------------------------

    def _submit(
        self, node: Node, operation: Operation, done: Callable[[Operation], None], argument: object = None
    ) -> None:
        assert node.target is not None
        operation.request = done, argument
        node.target.refresh()
        node.target.replica.submit(operation)
        self._execute(node)

    def _execute(self, node: Node) -> None:
        target = node.target
        assert target is not None
        for operation in target.replica.take():
            if operation.step in SENDING:
                self._send(node, operation)
            elif operation.step is Step.DONE:
                operation.request[0](operation)
            else:
                node.stores.append(operation)
        if target.become_ready():
            self.say(f"{node.name} is ready")

    def _store(self, node: Node, operation: Operation) -> None:
        target, store, chunk = node.target, node.store, operation.chunk
        assert target is not None
        name = chunk.decode()
        replica = target.replica
        target.refresh()
        match operation.step:
            case Step.PREPARE:
                kind = operation.kind
                assert isinstance(kind, UpdateKind)
                length = store.prepare(
                    chunk, operation.version, kind, operation.request[1], operation.identity, operation.chain_version
                )
                self.say(f"{node.name} has {name} v{operation.version} pending")
                replica.prepared(operation, length)
            case Step.COMMIT | Step.CONFIRM:
                version = operation.version if operation.step is Step.COMMIT else operation.leftover
                store.commit(chunk, version)
                self.say(f"{node.name} has {name} v{version} committed")
                replica.committed(operation)
            case Step.ABANDON:
                store.abandon(chunk, operation.version)
                self.say(f"{node.name} drops {name} v{operation.version}")
                replica.abandoned(operation)
            case Step.FORGET:
                store.forget(chunk)
                self.say(f"{node.name} forgets what it had of {name}")
                replica.forgotten(operation)
        self._execute(node)

    def _send(self, node: Node, operation: Operation) -> None:
        """One attempt to hand the operation to the successor."""
        asked, step = operation.asked, operation.step
        assert asked is not None and asked.successor is not None
        receiver = self._node(asked.successor.target)
        kind, argument, version = operation.kind, operation.request[1], operation.version
        identity, digest, base = operation.identity, operation.digest, operation.base
        if step is not Step.FORWARD:
            committed, pending = self._versions(node, operation.chunk)
            version, content = committed if step is Step.PUSH else pending
            kind = UpdateKind.FORGET if not version else UpdateKind.REMOVE if content is None else UpdateKind.REPLACE
            argument = content
            digest = node.store.digest(operation.chunk, pending=step is not Step.PUSH)
            base = node.store.digest(operation.chunk) if committed[1] is not None else 0
            left = node.store.pending_update(operation.chunk)
            identity = (left.client, left.channel, left.sequence) if left is not None else (b"", 0, 0)
        assert isinstance(kind, UpdateKind)
        name = operation.chunk.decode()
        what = f"forget {name}" if kind is UpdateKind.FORGET else f"{name} v{version}"
        if kind is UpdateKind.REPLACE:
            what += ", whole"
        elif kind is UpdateKind.REMOVE:
            what += ", removed"
        self._count += 1
        attempt = self._count
        node.attempts[attempt] = operation, asked

        def arrives() -> None:
            length = len(argument) if isinstance(argument, tuple) else 0
            client, channel, sequence = identity
            sent = Operation(
                operation.chunk,
                kind,
                chain_version=asked.version,
                version=version,
                length=length,
                source=node.number,
                client=client,
                channel=channel,
                sequence=sequence,
                digest=digest,
                base=base,
            )
            self._submit(receiver, sent, answers, argument)

        def answers(sent: Operation) -> None:
            failure = sent.failure
            words = f"{name} v{sent.version} is here" if sent.version else f"{name} is forgotten"
            if failure is not None:
                words = f"no to {what}: {failure.code.name}"
            self.messages.append(Message(receiver.name, node.name, words, lambda: hears(failure, sent)))

        def hears(failure: Failure | None, sent: Operation) -> None:
            if node.attempts.pop(attempt, None) is None or node.target is None:
                return
            replica = node.target.replica
            node.target.refresh()
            if failure is None:
                replica.forwarded(operation, sent.version, sent.length, asked)
            elif failure.code is Code.NEEDS_WHOLE:
                replica.needs_whole(operation, asked)
            else:
                replica.forward_attempt_failed(operation, failure, asked)
                node.refused.append((operation, asked))
            self._execute(node)

        self.messages.append(Message(node.name, receiver.name, what, arrives))

    def _agree(self, node: Node) -> None:
        """A tail that is not sure that it speaks alone asks its predecessor."""
        target = node.target
        assert target is not None
        position = target.position
        if position is None or not position.is_tail or target.agreed:
            return
        assert position.predecessor is not None
        predecessor, version = self._node(position.predecessor.target), position.version

        def arrives() -> None:
            predecessor.wait_for_version.append((node.name, version))
            self._tell_version(predecessor, node.name, version)

        words = f"does it act at version {version}?"
        self.messages.append(Message(node.name, predecessor.name, words, arrives))

    def _tell_version(self, node: Node, asker: str, version: int) -> None:
        position = node.target.position if node.target is not None else None
        if position is None or position.version < version:
            return
        node.wait_for_version.remove((asker, version))

        def hears() -> None:
            target = self.nodes[asker].target
            assert target is not None
            if target.position is not None and target.position.version == version:
                target.agreed = True
                self._execute(self.nodes[asker])

        self.messages.append(Message(node.name, asker, f"acts at version {position.version}", hears))

    # -- looking inside --------------------------------------------------------------------------------------------

    def _versions(self, node: Node, chunk: bytes) -> tuple[tuple[int, Content], tuple[int, Content]]:
        found = node.store.chunks.get(chunk)
        if found is None:
            return (0, None), (0, None)
        pending = found.pending
        return (found.version, found.content), (pending.version, pending.content) if pending else (0, None)

    def _version(self, node: Node) -> int:
        assert node.target is not None and node.target.position is not None
        return node.target.position.version

    def _node(self, number: int) -> Node:
        return next(node for node in self.nodes.values() if node.number == number)

    def _exists(self, name: str) -> bool:
        return self.nodes[name].target is not None

    def _running(self, names: tuple[str, ...]) -> list[Node]:
        if names == ("all",):
            return [node for node in self.nodes.values() if node.target is not None]
        return [self.nodes[name] for name in names]

    def _name_all(self, text: str) -> str:
        for node in self.nodes.values():
            text = text.replace(f"target {node.number}", node.name)
        return text


def tell(text: str) -> str:
    """The story with what happens now."""
    story = Story()
    out: list[str] = []
    skipping = False
    pending: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line == "----":
            for command in pending:
                if command and not command.startswith("#"):
                    story.command(command)
            out += ["----", *story.lines, ""]
            story.lines = []
            pending = []
            skipping = True
        elif skipping:
            skipping = bool(line)
        else:
            pending.append(line)
            out.append(line)
    while out and not out[-1]:
        out.pop()
    return "\n".join(out) + "\n"


def main() -> int:
    for path in map(Path, sys.argv[1:]):
        path.write_text(tell(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
