// A wallet of Aptos' SDK, with a new key, and Aptos' own library for texts to sign in with.
import { Account } from "@aptos-labs/ts-sdk";
import { createSignInMessage, createSignInSigningMessage, parseSignInMessage } from "@aptos-labs/siwa";

const encoder = new TextEncoder();

/** A wallet: address, chain (CAIP-2), and how it signs. */
export function aptosWallet() {
  const account = Account.generate();
  const signBytes = (bytes) => ({
    signature: account.sign(bytes).toString(), publicKey: account.publicKey.toString(),
  });
  return {
    address: account.accountAddress.toStringLong(),
    chain: "aptos:1",
    signIn: async (message) => signBytes(createSignInSigningMessage(message)),
    sign: async (message, nonce) => signBytes(encoder.encode(statementText(message, nonce))),
    fieldsOf,
  };
}

/** What a wallet's signMessage signs (AIP-62), asked for neither address, application nor chain. */
const statementText = (message, nonce) => `APTOS\nmessage: ${message}\nnonce: ${nonce}`;

/** What Aptos' library reads in a text that asks for a signature, and whether it would have written it just so itself. */
function fieldsOf(message) {
  const { valid, data, errors } = parseSignInMessage(message);
  if (!valid) throw new Error(`not a text to sign in with: ${errors.join(", ")}`);
  return { ...data, isStandard: createSignInMessage(data) === message };
}
