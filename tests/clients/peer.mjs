// A libp2p peer: an Ed25519 key and the id that follows from it (libp2p's specs, peer-ids.md).
import { generateKeyPairSync, sign } from "node:crypto";

const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const RAW_KEY_BYTES = 32;
const IDENTITY_MULTIHASH = [0x00, 36]; // "the hash is the value itself", of 36 bytes
const PUBLIC_KEY_MESSAGE = [0x08, 0x01, 0x12, RAW_KEY_BYTES]; // protobuf: type Ed25519, data

function base58(bytes) {
  let number = BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
  let text = "";
  for (; number > 0n; number /= 58n) text = ALPHABET[Number(number % 58n)] + text;
  const zeros = bytes.findIndex((byte) => byte !== 0);
  return ALPHABET[0].repeat(zeros) + text;
}

/** A new peer: its id, and how it signs for a purpose. */
export function newPeer() {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = publicKey.export({ type: "spki", format: "der" }).subarray(-RAW_KEY_BYTES);
  return {
    id: base58(Buffer.from([...IDENTITY_MULTIHASH, ...PUBLIC_KEY_MESSAGE, ...raw])),
    sign: (purpose, text) => sign(null, Buffer.from(`cotrain peer ${purpose}\0${text}`), privateKey).toString("hex"),
  };
}
