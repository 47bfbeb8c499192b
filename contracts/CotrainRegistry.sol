// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Records of training sessions: what was agreed on before, what came out, and who gave how much.
/// @notice Whoever opens a session here is the only one who can close it, once. Nobody owns this contract, nobody can
/// change or remove a record, there is nothing to upgrade, and it accepts no funds.
/// @dev Records lie under the account that opened them: two accounts may use the same session id and do not meet, so
/// nobody can occupy an id before its session opens. A record says what its opener said; whether an opener is to be
/// believed, readers decide. docs/chain.md defines every hash.
contract CotrainRegistry {
    /// @param configHash What was to be trained: SHA-256 of the session's config.
    /// @param finalDigest Of the model that came out; zero before the session is closed, or if there is none.
    /// @param contributionsRoot Merkle root over the samples of each account; zero if nobody gave any.
    /// @param totalSamples What all accounts gave together, as the opener says.
    /// @param openedAt Unix seconds of the block; zero if there is no such session.
    /// @param closedAt Unix seconds of the block; zero before the session is closed.
    struct Session {
        bytes32 configHash;
        bytes32 finalDigest;
        bytes32 contributionsRoot;
        uint128 totalSamples;
        uint64 openedAt;
        uint64 closedAt;
    }

    mapping(address opener => mapping(bytes32 sessionId => Session)) private _sessions;

    event SessionOpened(address indexed opener, bytes32 indexed sessionId, bytes32 configHash);
    event SessionClosed(
        address indexed opener,
        bytes32 indexed sessionId,
        bytes32 finalDigest,
        bytes32 contributionsRoot,
        uint128 totalSamples
    );

    /// @notice This account has opened this session before.
    error AlreadyOpened(address opener, bytes32 sessionId);
    /// @notice This account has opened no such session; another account's session is not its to close.
    error NotOpened(address opener, bytes32 sessionId);
    /// @notice This account has closed this session before.
    error AlreadyClosed(address opener, bytes32 sessionId);

    /// @notice Record that a session begins, in the sender's name.
    /// @param sessionId keccak256 of the session's id.
    /// @param configHash SHA-256 of the session's config.
    function openSession(bytes32 sessionId, bytes32 configHash) external {
        Session storage record = _sessions[msg.sender][sessionId];
        if (record.openedAt != 0) revert AlreadyOpened(msg.sender, sessionId);
        record.configHash = configHash;
        record.openedAt = uint64(block.timestamp);
        emit SessionOpened(msg.sender, sessionId, configHash);
    }

    /// @notice Record how one of the sender's sessions ended. What is said here stays.
    /// @param sessionId As it was opened with.
    /// @param finalDigest Of the model that came out; zero if there is none.
    /// @param contributionsRoot Merkle root over the samples of each account; zero if nobody gave any.
    /// @param totalSamples What all accounts gave together.
    function closeSession(bytes32 sessionId, bytes32 finalDigest, bytes32 contributionsRoot, uint128 totalSamples)
        external
    {
        Session storage record = _sessions[msg.sender][sessionId];
        if (record.openedAt == 0) revert NotOpened(msg.sender, sessionId);
        if (record.closedAt != 0) revert AlreadyClosed(msg.sender, sessionId);
        record.finalDigest = finalDigest;
        record.contributionsRoot = contributionsRoot;
        record.totalSamples = totalSamples;
        record.closedAt = uint64(block.timestamp);
        emit SessionClosed(msg.sender, sessionId, finalDigest, contributionsRoot, totalSamples);
    }

    /// @notice What an account recorded about a session; all zero if nothing.
    function session(address opener, bytes32 sessionId) external view returns (Session memory) {
        return _sessions[opener][sessionId];
    }

    /// @notice Whether an account gave this many samples to a session, as the session's opener recorded it.
    /// @param wallet keccak256 of the account's CAIP-10 name: one form for the accounts of every chain.
    /// @param proof From the leaf's sibling to the child of the root.
    /// @return Also false while the session is not closed, and where there is no such session.
    /// @dev Leaves are hashed twice, so that no inner node can be passed off as a leaf. OpenZeppelin's
    /// StandardMerkleTree over ("bytes32", "uint256") makes the same leaves, roots and proofs.
    function verify(address opener, bytes32 sessionId, bytes32 wallet, uint256 samples, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        Session storage record = _sessions[opener][sessionId];
        if (record.closedAt == 0) return false;
        bytes32 node = keccak256(bytes.concat(keccak256(abi.encode(wallet, samples))));
        for (uint256 i = 0; i < proof.length; ++i) {
            bytes32 sibling = proof[i];
            node = node < sibling ? keccak256(abi.encode(node, sibling)) : keccak256(abi.encode(sibling, node));
        }
        return node == record.contributionsRoot;
    }
}
