// Repeats a request while the page is visible.

const LONGEST_PAUSE = 10_000;
const TIMEOUT = 15_000;

export class Poll {
  #task;
  #options;
  #timer = null;
  #running = false;
  #again = false;
  #failures = 0;

  /**
   * Calls `task(signal)` at once and then every `interval` ms, until `signal` aborts. Where
   * `interval` is a function that returns null, the task waits for `now`. After a failure the pauses
   * grow. `failed(error, pause)` hears of it.
   */
  constructor(task, { signal, interval = 2000, failed = () => {} }) {
    this.#task = task;
    this.#options = { signal, interval, failed };
    document.addEventListener("visibilitychange", () => this.#pause() !== null && this.now(), {
      signal,
    });
    signal.addEventListener("abort", () => clearTimeout(this.#timer), { once: true });
    this.now();
  }

  /** Runs the task now, or again as soon as the present run has ended. */
  async now() {
    clearTimeout(this.#timer);
    const { signal, failed } = this.#options;
    if (signal.aborted || document.hidden) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    this.#again = false;
    try {
      await this.#task(AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT)]));
      this.#failures = 0;
    } catch (error) {
      if (!signal.aborted) {
        this.#failures += 1;
        failed(error, this.#pause());
      }
    } finally {
      this.#running = false;
      this.#schedule();
    }
  }

  #schedule() {
    if (this.#options.signal.aborted || document.hidden) return;
    const pause = this.#again ? 0 : this.#pause();
    if (pause !== null) this.#timer = setTimeout(() => this.now(), pause);
  }

  #pause() {
    const { interval } = this.#options;
    const usual = typeof interval === "function" ? interval() : interval;
    return this.#failures === 0
      ? usual
      : Math.min(LONGEST_PAUSE, 1000 * 1.7 ** (this.#failures - 1));
  }
}
