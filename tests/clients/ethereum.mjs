// A wallet of viem, with a new key.
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { createSiweMessage, parseSiweMessage } from "viem/siwe";

/** A wallet: address, chain (CAIP-2), and how it signs. */
export function ethereumWallet() {
  const account = privateKeyToAccount(generatePrivateKey());
  const sign = async (message) => ({ signature: await account.signMessage({ message }) });
  return { address: account.address, chain: "eip155:1", signIn: sign, sign, fieldsOf };
}

/** What viem reads in a text that asks for a signature, and whether it would have written it just so itself. */
function fieldsOf(message) {
  const fields = parseSiweMessage(message);
  return { ...fields, chainId: String(fields.chainId), isStandard: createSiweMessage(fields) === message };
}
