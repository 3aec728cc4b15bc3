// SPDX-License-Identifier: Apache-2.0
//
// Peers that part, close and come back: what pends fails with a status that says why, the old address is
// of another session, and connecting again repairs everything.

#include "check.h"

static void one_message(mx_endpoint_t ep, mx_endpoint_addr_t peer, uint64_t match)
{
    char bytes[100];
    fill(bytes, sizeof bytes, match);
    done(ep, send_bytes(ep, peer, bytes, sizeof bytes, match));
}

static void take_message(mx_endpoint_t ep, uint64_t match)
{
    char bytes[100];
    done(ep, receive_bytes(ep, bytes, sizeof bytes, match, MX_MATCH_MASK_NONE));
    CHECK(holds(bytes, sizeof bytes, match));
}

static uint32_t session_of(mx_endpoint_addr_t address)
{
    uint64_t nic_id;
    uint32_t endpoint_id, session = 0;
    OK(mx_decompose_endpoint_addr2(address, &nic_id, &endpoint_id, &session));
    return session;
}

// What a send to an endpoint that is closed, or open again, may end with.
static void expect_lost(mx_status_t status)
{
    if (status.code != MX_STATUS_ENDPOINT_CLOSED && status.code != MX_STATUS_BAD_ENDPOINT &&
        status.code != MX_STATUS_BAD_SESSION && status.code != MX_STATUS_ENDPOINT_UNREACHABLE)
        FAIL("the send ended with %d (%s)", (int)status.code, mx_strstatus(status.code));
    EQUAL(status.xfer_length, 0);
}

static void stay(const struct other *other, mx_endpoint_t ep, struct place theirs)
{
    static char large[1 << 20];
    mx_endpoint_addr_t peer = connect_to(ep, theirs), unconnected;
    mx_request_t pending;
    uint32_t first_session = session_of(peer);

    one_message(ep, peer, 1);
    // The other closes with our send still waiting for its receive.
    pending = send_bytes(ep, peer, large, sizeof large, 2);
    signal_other(other);
    expect_lost(ended(ep, pending));
    await_other(other);
    RETURNS(mx_connect(ep, theirs.nic_id, theirs.endpoint_id, KEY, 10000, &unconnected),
            MX_CONNECTION_FAILED);
    expect_lost(ended(ep, send_synchronously(ep, peer, large, 10, 2)));

    // It opens the same number again: the old address stays dead until we connect.
    signal_other(other);
    await_other(other);
    expect_lost(ended(ep, send_synchronously(ep, peer, large, 10, 2)));
    peer = connect_to(ep, theirs);
    CHECK(session_of(peer) != first_session);
    one_message(ep, peer, 3);

    // We part, and connect again.
    await_other(other);
    pending = send_synchronously(ep, peer, large, 10, 4);
    OK(mx_disconnect(ep, peer));
    expect_lost(ended(ep, pending));
    peer = connect_to(ep, theirs);
    one_message(ep, peer, 5);
    await_other(other);
}

static void come_and_go(const struct other *other, mx_endpoint_t ep, struct place mine)
{
    take_message(ep, 1);
    await_other(other);
    OK(mx_close_endpoint(ep));
    signal_other(other);
    await_other(other);
    OK(mx_open_endpoint(BOARD, mine.endpoint_id, KEY, NULL, 0, &ep));
    signal_other(other);
    take_message(ep, 3);
    signal_other(other);
    take_message(ep, 5);
    signal_other(other);
    end(ep);
}

int main(void)
{
    struct other other = split();
    struct place theirs, mine;
    mx_endpoint_t ep;

    begin();
    ep = open_any();
    mine = own_place(ep);
    tell(&other, &mine, sizeof mine);
    hear(&other, &theirs, sizeof theirs);
    if (!other.pid) {
        come_and_go(&other, ep, mine);
        return 0;
    }
    stay(&other, ep, theirs);
    end(ep);
    join_other(&other);
    return 0;
}
