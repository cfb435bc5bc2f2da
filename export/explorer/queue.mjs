// One job at a time, the newest of each kind: inference keeps up with a hand that is faster.

/**
 * @param failed called with the error of a job that throws; the jobs after it still run
 * @returns submit(kind, job): runs the async job in its turn, in place of one of its kind that
 *   still waits; drain(): drops those that wait, a promise of the end of the one that runs
 */
export function createQueue(failed) {
  const waiting = new Map();
  let running = null;

  async function work() {
    while (waiting.size > 0) {
      const [kind, job] = waiting.entries().next().value;
      waiting.delete(kind);
      try {
        await job();
      } catch (error) {
        failed(error);
      }
    }
    running = null;
  }

  function submit(kind, job) {
    waiting.delete(kind);
    waiting.set(kind, job);
    running ??= work();
  }

  async function drain() {
    waiting.clear();
    await running;
  }

  return { submit, drain };
}
