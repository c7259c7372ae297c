// Sound: all sounds run together from one clock, and only their gains change.

// What is left of a sound without another: scale · (a − factor · b), sample by sample.
export const restOf = (a, b, [factor, scale]) => a.map((value, n) => scale * (value - factor * (b[n] ?? 0)));

// Where a sound of `duration` seconds is that started at `from` and has run for `gone` seconds.
export const placeAt = (from, gone, duration, loop) => {
  const where = from + Math.max(0, gone);
  return loop ? where % duration : Math.min(where, duration);
};

// `rate`: of the sounds, in Hz, if all have the same; `duration()`, `loop()`, `gains()`: what holds now; `load()`: buffers to play, promised;
// `changed()`: it plays or stopped; `failed(error)`: a sound could not be had.
export const player = ({ rate, duration, loop, gains, load, changed, failed }) => {
  let [context, nodes, from, since, playing, turn] = [null, null, 0, 0, false, 0];
  const held = new Map();
  const clock = () => {
    if (!context) {
      try {
        context = new AudioContext({ sampleRate: rate }); // as it is: nothing is resampled here
      } catch {
        context = new AudioContext();
      }
    }
    return context;
  };
  // The decoded sound of a name; as many are held as fit ten minutes.
  const decoded = async (name, bytes) => {
    if (!held.has(name)) {
      held.set(name, await clock().decodeAudioData(await bytes()));
      const limit = Math.max(8, Math.floor(600 / duration()));
      for (const old of held.keys()) {
        if (held.size <= limit) break;
        held.delete(old);
      }
    }
    return held.get(name);
  };
  const made = (samples, sampleRate) => {
    const buffer = clock().createBuffer(1, samples.length, sampleRate);
    buffer.copyToChannel(samples, 0);
    return buffer;
  };
  const mixed = (original, feature, rest) => made(restOf(original.getChannelData(0), feature.getChannelData(0), rest), original.sampleRate);
  const position = () => (playing ? placeAt(from, context.currentTime - since, duration(), loop()) : from);
  const level = (when) => {
    const wanted = gains();
    nodes.forEach(({ gain }, k) => gain.gain.setTargetAtTime(wanted[k], when, 0.004));
  };
  const silence = (when) => {
    for (const { gain, node } of nodes ?? []) {
      gain.gain.cancelScheduledValues(when);
      gain.gain.setTargetAtTime(0, when, 0.004);
      node.onended = null;
      node.stop(when + 0.05);
    }
  };
  // Starts, or goes on at the same place with other sounds.
  const start = async () => {
    const mine = ++turn;
    try {
      if (clock().state !== "running") await clock().resume();
      const buffers = await load();
      if (mine !== turn) return;
      const when = context.currentTime + 0.02;
      let at = position() + (playing ? 0.02 : 0);
      if (at >= duration() - 0.01) at = 0;
      silence(when);
      nodes = buffers.map((buffer) => {
        const node = new AudioBufferSourceNode(context, { buffer, loop: loop(), loopEnd: buffer.duration });
        const gain = new GainNode(context, { gain: 0 });
        node.connect(gain).connect(context.destination);
        node.start(when, at);
        return { node, gain };
      });
      level(when);
      nodes[0].node.onended = () => stop(0);
      [from, since, playing] = [at, when, true];
      changed();
    } catch (error) {
      if (mine !== turn) return;
      stop(position());
      failed(error);
    }
  };
  const stop = (where) => {
    turn++;
    if (nodes) silence(context.currentTime);
    [nodes, from, playing] = [null, where, false];
    changed();
  };
  const rebase = () => { [from, since] = [position(), context?.currentTime ?? 0]; };
  const seek = (where) => {
    [from, since] = [Math.min(Math.max(where, 0), duration()), context?.currentTime ?? 0];
    if (playing) start();
  };
  return {
    decoded, made, mixed, position, start, stop, seek,
    playing: () => playing,
    toggle: () => (playing ? stop(position()) : start()),
    hear: () => { if (nodes) level(context.currentTime); },
    // Before `loop` changes: where it is now stays where it is.
    repeat: (on) => {
      rebase();
      for (const { node } of nodes ?? []) node.loop = on;
    },
  };
};
