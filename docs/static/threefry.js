// impls/numpy/prng.py and impls/numpy/dropout.py in JavaScript: the same bits, the same masks.
// A key is an array of two unsigned 32-bit integers, as in JAX.
"use strict";

const Threefry = (() => {
  const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];

  // Hash a 64-bit counter, given as two halves, with a key. All sums are modulo 2**32.
  function hash(key, high, low) {
    const keys = [key[0], key[1], (key[0] ^ key[1] ^ 0x1bd11bda) >>> 0];
    let x0 = (high + keys[0]) >>> 0;
    let x1 = (low + keys[1]) >>> 0;
    for (let group = 0; group < 5; group++) {
      for (const distance of ROTATIONS[group % 2]) {
        x0 = (x0 + x1) >>> 0;
        x1 = ((x1 << distance) | (x1 >>> (32 - distance))) >>> 0;
        x1 = (x1 ^ x0) >>> 0;
      }
      x0 = (x0 + keys[(group + 1) % 3]) >>> 0;
      x1 = (x1 + keys[(group + 2) % 3] + group + 1) >>> 0;
    }
    return [x0, x1];
  }

  const range = (n) => Array.from({ length: n }, (_, i) => i);

  // The key of the lower 32 bits of a seed.
  const key = (seed) => [0, seed >>> 0];

  // `num` new keys: the hashes of 0, 1, ...
  const split = (key, num = 2) => range(num).map((i) => hash(key, 0, i));

  // A new key for a number, for example for the step of training.
  const foldIn = (key, data) => hash(key, 0, data >>> 0);

  // n uniform float32 numbers in [0, 1): multiples of 2**-23.
  const uniform = (key, n) =>
    range(n).map((i) => {
      const [high, low] = hash(key, 0, i);
      return ((high ^ low) >>> 9) / 2 ** 23;
    });

  // A mask: true, with probability 1 - p, where a unit is kept.
  const sampleKeep = (key, n, p) => uniform(key, n).map((u) => u >= Math.fround(p));

  // x / (1 - p) where keep is true, exactly 0 elsewhere, in float32.
  function applyKeep(x, keep, p) {
    const keepRate = Math.fround(p < 1 ? 1 - p : 1);
    return x.map((value, i) => (keep[i] ? Math.fround(Math.fround(value) / keepRate) : 0));
  }

  return { hash, key, split, foldIn, uniform, sampleKeep, applyKeep };
})();
