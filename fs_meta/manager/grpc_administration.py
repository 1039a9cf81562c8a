"""What operators and tools ask, over gRPC: the service Administration of `fs_common/control.proto`.

Thin: each call converts its request, hands it to the manager or to `growth`, and converts the answer.

Called by: `grpc_service`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from fs_common import control_pb2 as pb
from fs_common.admin_records import (
    config_version_message,
    list_chains_message,
    list_moves_message,
    list_nodes_message,
    moves_message,
    node_view_message,
    rotate_chain_message,
    scrub_message,
    setting_message,
    target_view_message,
)
from fs_common.control_records import config_report_message, sync_message
from fs_common.errors import Code, EmberError
from fs_common.records.chains import ListChainsReply
from fs_common.records.scrubbing import Scrub
from fs_common.records.targets import AddTargets, CancelMoves, Drain, ForgetNode, NodeView, Rebalance, ReplaceTarget
from fs_common.settings import STORAGE
from fs_meta.manager.callers import Callers
from fs_meta.manager.growth import Growth
from fs_meta.manager.grpc_errors import abort, answering
from fs_meta.manager.manager import Manager
from fs_meta.manager.membership import TargetReport
from fs_meta.manager.setting_views import settings_of
from fs_meta.manager.user_calls import UserCalls
from fs_meta.manager.views import PAGE_MAX, is_degraded
from fs_meta.scrubs import Scrubs
from fs_meta.users.users import Users

_log = logging.getLogger(__name__)

SLICE: Final = 50
"""Chains that are looked at without a break: about two milliseconds, with their messages."""


CONFIG_PAGE_MAX: Final = 20
"""Versions on a page: each has its whole text."""


class AdministrationServicer(UserCalls):
    """Each method is one call of the manager."""

    def __init__(self, manager: Manager, growth: Growth, users: Users) -> None:
        super().__init__(users)
        self._callers = Callers(users)
        self._manager = manager
        self._growth = growth
        self.scrubs: Scrubs | None = None
        """None: storage daemons cannot be asked yet."""

    # --- nodes ------------------------------------------------------------------------------------------------

    @answering
    async def ListNodes(self, request: Any) -> Any:
        reply = self._growth.nodes(request.after, request.limit)
        message = list_nodes_message(reply)
        for view, node in zip(reply.nodes, message.nodes, strict=True) if request.reports else ():
            self._add_reports(view, node)
        return message

    @answering
    async def GetNode(self, request: Any) -> Any:
        view = self._growth.node(request.node)
        message = node_view_message(view)
        self._add_reports(view, message)
        return message

    def _add_reports(self, view: NodeView, message: Any) -> None:
        """What the node said of its targets."""
        targets = self._manager.members()[view.node].targets
        message.targets.extend(_target_report(target, says) for target, says in targets.items())

    @answering
    async def ForgetNode(self, request: Any) -> Any:
        return moves_message(await self._growth.forget(ForgetNode(request.node)))

    # --- chains and targets -----------------------------------------------------------------------------------

    @answering
    async def ListChains(self, request: Any) -> Any:
        message = pb.ListChainsReply()
        async for reply in self._in_slices(request, request.chains):
            message.MergeFrom(list_chains_message(reply))
            message.next = reply.next
        return message

    @answering
    async def ListTargets(self, request: Any) -> Any:
        message = pb.ListTargetsReply()
        async for reply in self._in_slices(request):
            message.routing_version = reply.routing_version
            message.next = reply.next
            message.targets.extend(
                pb.ChainedTarget(chain=chain.chain, target=target_view_message(target))
                for chain in reply.chains
                for target in chain.targets
                if request.node in (0, target.node) and (is_degraded(target) or not request.degraded)
            )
        return message

    async def _in_slices(self, request: Any, chains: Sequence[int] = ()) -> AsyncIterator[ListChainsReply]:
        """A page in pieces, between which others have the loop."""
        after, left = request.after, min(request.limit or PAGE_MAX, PAGE_MAX)
        while True:
            reply = self._manager.list_chains(
                chains,
                degraded=request.degraded,
                node=request.node,
                after=after,
                limit=min(left, SLICE),
            )
            yield reply
            after, left = reply.next, left - SLICE
            if left <= 0 or not after:
                return
            await asyncio.sleep(0)

    @answering
    async def RotateChain(self, request: Any) -> Any:
        return rotate_chain_message(
            await self._manager.rotate(request.chain, request.target, accept_loss=request.accept_loss)
        )

    @answering
    async def Rest(self, request: Any) -> Any:
        await self._manager.rest()
        return pb.RestReply()

    async def Backup(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(self._manager.backup()) as parts:
                async for part in parts:
                    # Asked before each: the token may have been revoked, or have lost its right, meanwhile.
                    self._callers.require_admin(context, "Backup")
                    yield pb.BackupPart(data=part)
        except EmberError as error:
            await abort(context, error)
        except Exception:
            _log.exception("Backup failed")
            await abort(context, EmberError(Code.INTERNAL))

    # --- moves ------------------------------------------------------------------------------------------------

    @answering
    async def ListMoves(self, request: Any) -> Any:
        return list_moves_message(self._growth.moves(request.after, request.limit, active=request.active))

    @answering
    async def Rebalance(self, request: Any) -> Any:
        return moves_message(await self._growth.rebalance(Rebalance(request.dry_run)))

    @answering
    async def AddTargets(self, request: Any) -> Any:
        return moves_message(await self._growth.add(AddTargets(request.node, request.dry_run)))

    @answering
    async def ReplaceTarget(self, request: Any) -> Any:
        return moves_message(await self._growth.replace(ReplaceTarget(request.target, request.node, request.dry_run)))

    @answering
    async def Drain(self, request: Any) -> Any:
        return moves_message(
            await self._growth.drain(Drain(request.node, request.target, request.undo, request.dry_run))
        )

    @answering
    async def CancelMoves(self, request: Any) -> Any:
        return moves_message(await self._growth.cancel(CancelMoves(list(request.moves))))

    # --- scrubs -----------------------------------------------------------------------------------------------

    @answering
    async def ListScrubs(self, request: Any) -> Any:
        page = await self._reached().page(Scrub(), request.after, request.limit)
        reply = pb.ListScrubsReply(next=page.next)
        for node, said in page.replies:
            if said is None:
                reply.silent_nodes.append(node.node)
                continue
            reply.scrubs.extend(scrub_message(node.node, one) for one in said.targets)
        return reply

    @answering
    async def BeginScrub(self, request: Any) -> Any:
        await self._reached().begin(list(request.chains), request.bytes_per_s)
        return pb.BeginScrubReply()

    def _reached(self) -> Scrubs:
        self._manager.members()
        if self.scrubs is None:
            raise EmberError(Code.CLUSTER_NOT_READY, "the metadata server is being started")
        return self.scrubs

    # --- configuration ----------------------------------------------------------------------------------------

    @answering
    async def GetConfig(self, request: Any) -> Any:
        config = self._manager.configuration()
        return config_version_message(await config.version(request.kind, request.version))

    @answering
    async def SetConfig(self, request: Any) -> Any:
        config = self._manager.configuration()
        if request.dry_run:
            config.validate(request.kind, request.text, request.comment)
            current = config.current(request.kind)
            return pb.ConfigVersion(kind=request.kind, version=current.version, text=request.text)
        expected = request.expected if request.checked else None
        return config_version_message(
            await self._manager.set_config(request.kind, request.text, request.comment, expected)
        )

    @answering
    async def ListConfigVersions(self, request: Any) -> Any:
        config = self._manager.configuration()
        limit = min(request.limit or CONFIG_PAGE_MAX, CONFIG_PAGE_MAX)
        versions = await config.versions(request.kind, request.after, limit + 1)
        shown = versions[:limit]
        return pb.ListConfigVersionsReply(
            versions=[config_version_message(version) for version in shown],
            next=shown[-1].version if len(versions) > limit else 0,
        )

    @answering
    async def ListSettings(self, request: Any) -> Any:
        config = self._manager.configuration()
        current = config.current(request.kind)
        report = config.own_report(request.kind)
        if request.node:
            if request.kind != STORAGE:
                raise EmberError(Code.INVALID, f"nodes are storage daemons: there is no node of kind {request.kind!r}")
            report = self._growth.node(request.node).config
        return pb.ListSettingsReply(
            settings=[setting_message(each) for each in settings_of(request.kind, current.text, report)],
            version=current.version,
            report=config_report_message(report),
        )


def _target_report(target: int, says: TargetReport) -> Any:
    return pb.TargetReport(
        target=target,
        state=int(says.report.state),
        used_bytes=says.used_bytes,
        chain_version=says.report.chain_version,
        not_whole=not says.report.whole,
        trouble=says.trouble,
        sync=None if says.sync is None else sync_message(says.sync),
    )
