// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// A wallet with one owner: a signature is the wallet's if it is the owner's (65 bytes: r, s, v).
contract OwnedWallet {
    address private immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        if (signature.length != 65) {
            return 0xffffffff;
        }
        bytes32 r = bytes32(signature[0:32]);
        bytes32 s = bytes32(signature[32:64]);
        address signer = ecrecover(hash, uint8(signature[64]), r, s);
        return signer == owner && signer != address(0) ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}

/// Refuses every question.
contract RevertingWallet {
    error NotToday();

    fallback() external {
        revert NotToday();
    }
}

/// Answers every question with the same bytes, whatever they mean.
contract EchoingWallet {
    bytes private answer;

    constructor(bytes memory answer_) {
        answer = answer_;
    }

    fallback(bytes calldata) external returns (bytes memory) {
        return answer;
    }
}
