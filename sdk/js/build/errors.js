// A build that cannot succeed: what was attempted and why it failed, and what mends it.
export class BuildError extends Error {
  constructor(message, mend = "") {
    super(message);
    this.mend = mend;
  }
}
