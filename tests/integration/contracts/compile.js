// Prints ABI and bytecode of the contracts in Wallets.sol: `node compile.js > wallets.json`, with solc 0.8.30 installed.
"use strict";
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const source = "Wallets.sol";
const input = {
  language: "Solidity",
  sources: { [source]: { content: fs.readFileSync(path.join(__dirname, source), "utf8") } },
  settings: {
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 200 },
    metadata: { appendCBOR: false, bytecodeHash: "none" },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
const errors = (output.errors || []).filter((problem) => problem.severity === "error");
if (errors.length > 0) {
  throw new Error(errors.map((problem) => problem.formattedMessage).join("\n"));
}
const contracts = Object.entries(output.contracts[source]).map(([name, contract]) => [
  name,
  { abi: contract.abi, bytecode: `0x${contract.evm.bytecode.object}` },
]);
process.stdout.write(`${JSON.stringify(Object.fromEntries(contracts), null, 2)}\n`);
