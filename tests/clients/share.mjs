// Checks a saved share with tools of others only: OpenZeppelin's tree, and viem for the chain.
//
//   node share.mjs SHARE.json CREDIT.json RPC-URL
//
// Prints one JSON object with what each of them says.
import { readFileSync } from "node:fs";
import { StandardMerkleTree } from "@openzeppelin/merkle-tree";
import { createPublicClient, defineChain, http, keccak256, parseAbi, toBytes } from "viem";

const ABI = parseAbi([
  "struct Session { bytes32 configHash; bytes32 finalDigest; bytes32 contributionsRoot; uint128 totalSamples; uint64 openedAt; uint64 closedAt; }",
  "function session(address opener, bytes32 sessionId) view returns (Session)",
  "function verify(address opener, bytes32 sessionId, bytes32 wallet, uint256 samples, bytes32[] proof) view returns (bool)",
]);
const LEAF = ["bytes32", "uint256"];

const [shareFile, creditFile, rpc] = process.argv.slice(2);
const share = JSON.parse(readFileSync(shareFile, "utf-8"));
const credit = JSON.parse(readFileSync(creditFile, "utf-8"));

const nameHash = (name) => keccak256(toBytes(name));
const leafOf = ({ account, samples }) => [nameHash(account), BigInt(samples)];

const tree = StandardMerkleTree.of(credit.items.map(leafOf), LEAF);
const place = credit.items.findIndex(({ account }) => account === share.account);

const id = Number(share.record.chain.split(":")[1]);
const chain = defineChain({ id, name: "recorded", nativeCurrency: { name: "", symbol: "", decimals: 18 }, rpcUrls: { default: { http: [rpc] } } });
const client = createPublicClient({ chain, transport: http(rpc) });
const asked = { address: share.record.contract, abi: ABI };
const key = nameHash(share.record.session);
const takes = (samples) => client.readContract({
  ...asked, functionName: "verify", args: [share.record.opener, key, nameHash(share.account), samples, share.proof],
});
const record = await client.readContract({ ...asked, functionName: "session", args: [share.record.opener, key] });
const closing = await client.getTransactionReceipt({ hash: share.record.closeTx });

console.log(JSON.stringify({
  chainId: await client.getChainId(),
  root: tree.root,
  proof: tree.getProof(place),
  treeTakes: StandardMerkleTree.verify(share.record.contributionsRoot, LEAF, leafOf(share), share.proof),
  recordedRoot: record.contributionsRoot,
  recordedTotal: Number(record.totalSamples),
  chainTakes: await takes(BigInt(share.samples)),
  chainTakesOneMore: await takes(BigInt(share.samples) + 1n),
  closedBy: closing.from,
  closedFor: closing.to,
}));
