"""Somebody who has taken over a child of nbdd gets nothing that its role does not need.

The payloads of attempts.c run in the very sandbox, one process each, in a guest, where all of
them work for an ordinary process of root."""
import pytest

from tests.harness.paths import BUILD

pytestmark = pytest.mark.guest

# What a role must be able to do; everything else is refused, or ends the process.
MAY = {
    'negotiate': {'pass_descriptor'},
    'dial': {'pass_descriptor', 'socket_inet', 'connect'},
    'relay': set(),
    'resolve': {'pass_descriptor', 'open', 'socket_inet', 'socket_unix', 'socket_netlink',
                'connect', 'socket_filter', 'map_code', 'make_code'},
    'read': {'pass_descriptor', 'open', 'open_root'},
    'errand': {'pass_descriptor', 'open', 'open_root', 'device'},
    'reach': {'pass_descriptor', 'socket_unix', 'connect'},
    'dispose': set(),
}
# Made by nbdd-connect.service, they can do no more.  The guest's kernel has no Landlock.
MAY.update({f'service-{role}': MAY[role] for role in ('negotiate', 'dial', 'relay', 'resolve')})
KILLS = ('negotiate', 'dial', 'relay', 'dispose')
NO_MEMORY = ('relay', 'dispose')         # to be had, at all
# Limits make a call fail and leave the process alone.
BY_LIMIT = {'memory'}
# What nbdd itself must not be able to do, whoever owns it.
NBDD_NEVER = {'mknod', 'socket_raw', 'ptrace', 'read_parent', 'write_parent', 'parent_memory',
              'parent_schedule', 'mount', 'unshare', 'exec', 'bpf', 'io_uring', 'perf',
              'userfaultfd', 'keyring', 'clock', 'hostname', 'kernel_log', 'chroot',
              'setgroups', 'setuid'}


def outcomes(guest, role):
    """{attempt: 'worked', 'killed' or 'refused E…'}, and what the daemon's log says."""
    guest.sh('mkdir -p /run/escape; touch /tmp/victim')
    out = guest.run([BUILD / 'tests' / 'escape', '/run/escape', role], timeout=60).out
    lines = [line.partition(' ') for line in out.splitlines() if not line.startswith('nbdd: ')]
    log = [line for line in out.splitlines() if line.startswith('nbdd: ')]
    return {name: outcome for name, _, outcome in lines}, log


@pytest.fixture(scope='module')
def free(guest):
    """What this kernel can do: a test of an attempt that fails anyway would say nothing."""
    result, _ = outcomes(guest, 'free')
    lacking = {name for name, outcome in result.items() if outcome == 'refused ENOSYS'}
    assert lacking <= {'perf'}, lacking
    failed = {n: o for n, o in result.items() if o != 'worked' and n not in lacking}
    assert not failed and len(result) > 45, failed
    return result


@pytest.mark.parametrize('role', MAY)
def test_a_child_can_do_what_its_role_needs_and_no_more(guest, free, role):
    result, log = outcomes(guest, role)
    assert result.keys() == free.keys()
    assert {n for n, outcome in result.items() if outcome == 'worked'} == MAY[role]
    role = role.removeprefix('service-')
    if role not in KILLS:
        assert 'killed' not in result.values()
        return
    survived = {n for n, outcome in result.items() if outcome.startswith('refused')}
    assert survived == (BY_LIMIT if role not in NO_MEMORY else set())
    killed = [line for line in log if 'was killed: it made a system call that its role' in line]
    assert len(killed) == list(result.values()).count('killed')


def test_nbdd_itself_cannot_do_what_it_never_does(guest, free):
    result, _ = outcomes(guest, 'nbdd')
    assert {n for n, outcome in result.items() if outcome != 'worked'} == NBDD_NEVER
