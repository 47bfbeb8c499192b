// Compiles CotrainRegistry.sol, without a network, into the file that the Python side loads.
//
//   node build.mjs           write ../cotrain/chain/CotrainRegistry.json
//   node build.mjs --check   exit with 1 unless that file is what the source compiles to
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

const NAME = "CotrainRegistry";
const FILE = `${NAME}.sol`;
const TARGET = new URL(`../cotrain/chain/${NAME}.json`, import.meta.url);
const SETTINGS = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 200 },
  // without the hash of the source's metadata, which would change with a comment
  metadata: { appendCBOR: false, bytecodeHash: "none" },
};

function compile(source) {
  const asked = {
    language: "Solidity",
    sources: { [FILE]: { content: source } },
    settings: { ...SETTINGS, outputSelection: { [FILE]: { [NAME]: ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } } },
  };
  const answer = JSON.parse(solc.compile(JSON.stringify(asked)));
  if (answer.errors?.length) {
    throw new Error(answer.errors.map((one) => one.formattedMessage).join("\n"));
  }
  return answer.contracts[FILE][NAME];
}

function artifact() {
  const source = readFileSync(new URL(FILE, import.meta.url), "utf-8");
  const { abi, evm } = compile(source);
  return {
    contractName: NAME,
    sourceSha256: createHash("sha256").update(source).digest("hex"),
    compiler: { version: solc.version(), settings: SETTINGS },
    abi,
    bytecode: `0x${evm.bytecode.object}`,
    deployedBytecode: `0x${evm.deployedBytecode.object}`,
  };
}

const made = `${JSON.stringify(artifact(), null, 2)}\n`;
if (!process.argv.includes("--check")) {
  writeFileSync(TARGET, made);
} else if (readFileSync(TARGET, "utf-8") !== made) {
  console.error(`cotrain/chain/${NAME}.json is not what contracts/${FILE} compiles to: run "npm run build" in contracts/`);
  process.exitCode = 1;
}
