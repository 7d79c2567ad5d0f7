// Side effects only: `node --import hostler-plugin/testing/register --test`.
export {};
