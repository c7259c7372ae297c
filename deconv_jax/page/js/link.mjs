// The line to the studio's server: questions as JSON; answers as one frame each, JSON and then bytes.

// A frame → [what it says, the bytes after that].
export const unpacked = (buffer) => {
  const length = new DataView(buffer).getUint32(0, true);
  return [JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))), buffer.slice(4 + length)];
};

// 16-bit samples, little-endian → Float32Array.
export const samplesOf = (bytes) => {
  const view = new DataView(bytes);
  return Float32Array.from({ length: bytes.byteLength >> 1 }, (_, n) => view.getInt16(2 * n, true) / 32767);
};

// `address`: of the socket; `heard(message, bytes)`; `opened()`; `lost()`: the line broke, and is tried again.
export const lineTo = (address, { heard, opened, lost }) => {
  let [socket, turn] = [null, 0];
  const connect = () => {
    socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = opened;
    socket.onmessage = (event) => heard(...unpacked(event.data));
    socket.onclose = () => {
      lost();
      setTimeout(connect, 2000);
    };
  };
  connect();
  // Asks, and gives the turn by which the answer is known.
  return (what, more = {}) => {
    turn += 1;
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ do: what, turn, ...more }));
    return turn;
  };
};
