// Where nodes lie: springs along relations, repulsion between all (Barnes and Hut's approximation), a pull to the
// middle. `layoutWorker` is turned into the source of a Web Worker, so it must not use anything outside itself.
function layoutWorker(port) {
  const REPULSION = 130;
  const DISTANCE = 34;
  const PULL = 0.035;
  const COOLING = 0.0228;
  const COLD = 0.004;
  const NEAR = 0.81;
  const SHOW_MS = 40;
  let n = 0;
  let x, y, vx, vy, sources, targets, strength, share;
  let heat = 1;
  let held = -1;
  let running = false;
  let shownAt = 0;
  let cells = 0;
  let child, mass, centreX, centreY;

  function start(count, ends) {
    n = count;
    [x, y, vx, vy] = [0, 1, 2, 3].map(() => new Float64Array(n));
    for (let i = 0; i < n; i += 1) {
      const radius = 12 * Math.sqrt(i + 0.5);
      x[i] = radius * Math.cos(i * 2.399963);
      y[i] = radius * Math.sin(i * 2.399963);
    }
    const edges = ends.length / 2;
    const degree = new Float64Array(n);
    for (const end of ends) degree[end] += 1;
    sources = new Int32Array(edges);
    targets = new Int32Array(edges);
    strength = new Float64Array(edges);
    share = new Float64Array(edges);
    for (let e = 0; e < edges; e += 1) {
      const [a, b] = [ends[2 * e], ends[2 * e + 1]];
      sources[e] = a;
      targets[e] = b;
      strength[e] = a === b ? 0 : 1 / Math.min(degree[a], degree[b]);
      share[e] = degree[a] / (degree[a] + degree[b]);
    }
    const room = 64 + 8 * n;
    child = new Int32Array(4 * room);
    [mass, centreX, centreY] = [0, 1, 2].map(() => new Float64Array(room));
  }

  function cell() {
    const c = cells;
    cells += 1;
    child.fill(0, 4 * c, 4 * c + 4);
    mass[c] = centreX[c] = centreY[c] = 0;
    return c;
  }

  // Children: 0 is none, k > 0 is cell k, k < 0 is node -k - 1. Nodes in one place share a leaf's mass.
  function buildTree() {
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < n; i += 1) {
      low = Math.min(low, x[i], y[i]);
      high = Math.max(high, x[i], y[i]);
    }
    const size = Math.max(high - low, 1);
    cells = 0;
    cell();
    for (let i = 0; i < n; i += 1) insert(i, low, low, size);
    return size;
  }

  function insert(i, left, top, width) {
    let c = 0;
    for (let depth = 0; ; depth += 1) {
      mass[c] += 1;
      centreX[c] += x[i];
      centreY[c] += y[i];
      width /= 2;
      const quarter = (x[i] >= left + width ? 1 : 0) + (y[i] >= top + width ? 2 : 0);
      if (quarter & 1) left += width;
      if (quarter & 2) top += width;
      const slot = 4 * c + quarter;
      const there = child[slot];
      if (there === 0) {
        child[slot] = -i - 1;
        return;
      }
      if (there < 0) {
        if (depth > 40 || cells + 2 >= mass.length) return;
        const inner = cell();
        child[slot] = inner;
        const j = -there - 1;
        mass[inner] = 1;
        centreX[inner] = x[j];
        centreY[inner] = y[j];
        const half = width / 2;
        child[4 * inner + (x[j] >= left + half ? 1 : 0) + (y[j] >= top + half ? 2 : 0)] = there;
        c = inner;
      } else c = there;
    }
  }

  const stack = new Int32Array(4096);
  const widths = new Float64Array(4096);

  function repel(i, size) {
    let top = 1;
    stack[0] = 0;
    widths[0] = size;
    while (top > 0) {
      top -= 1;
      const c = stack[top];
      const width = widths[top];
      const dx = centreX[c] / mass[c] - x[i];
      const dy = centreY[c] / mass[c] - y[i];
      const square = dx * dx + dy * dy;
      if (width * width < NEAR * square) {
        push(i, dx, dy, square, mass[c]);
        continue;
      }
      for (let quarter = 0; quarter < 4; quarter += 1) {
        const there = child[4 * c + quarter];
        if (there > 0) {
          stack[top] = there;
          widths[top] = width / 2;
          top += 1;
        } else if (there < 0 && -there - 1 !== i) {
          const j = -there - 1;
          const [ex, ey] = [x[j] - x[i], y[j] - y[i]];
          push(i, ex, ey, ex * ex + ey * ey, 1);
        }
      }
    }
  }

  function push(i, dx, dy, square, weight) {
    if (square === 0) {
      dx = ((i % 7) - 3) / 10 || 0.1;
      dy = ((i % 5) - 2) / 10;
      square = dx * dx + dy * dy;
    }
    const force = (-REPULSION * weight * heat) / Math.max(square, 25);
    vx[i] += dx * force;
    vy[i] += dy * force;
  }

  function step() {
    const size = buildTree();
    for (let i = 0; i < n; i += 1) repel(i, size);
    for (let e = 0; e < sources.length; e += 1) {
      const [a, b] = [sources[e], targets[e]];
      let dx = x[b] + vx[b] - x[a] - vx[a];
      let dy = y[b] + vy[b] - y[a] - vy[a];
      const length = Math.sqrt(dx * dx + dy * dy) || 1;
      const force = ((length - DISTANCE) / length) * heat * strength[e];
      dx *= force;
      dy *= force;
      vx[b] -= dx * share[e];
      vy[b] -= dy * share[e];
      vx[a] += dx * (1 - share[e]);
      vy[a] += dy * (1 - share[e]);
    }
    for (let i = 0; i < n; i += 1) {
      vx[i] = (vx[i] - x[i] * PULL * heat) * 0.6;
      vy[i] = (vy[i] - y[i] * PULL * heat) * 0.6;
      if (i === held) continue;
      x[i] += vx[i];
      y[i] += vy[i];
    }
    heat -= heat * COOLING;
  }

  function show(done) {
    const places = new Float32Array(2 * n);
    for (let i = 0; i < n; i += 1) {
      places[2 * i] = x[i];
      places[2 * i + 1] = y[i];
    }
    port.post({ places, done });
  }

  // A few steps, then a breath, so that messages are heard and a page that runs this itself stays awake.
  function run() {
    const until = Date.now() + 12;
    do step(); while (heat > COLD && Date.now() < until);
    running = heat > COLD;
    if (!running || Date.now() - shownAt > SHOW_MS) {
      shownAt = Date.now();
      show(!running);
    }
    if (running) setTimeout(run, 0);
  }

  port.hear = (message) => {
    if (message.start) start(message.start.nodes, message.start.ends);
    if (message.hold) {
      held = message.hold.node;
      if (held >= 0) [x[held], y[held]] = [message.hold.x, message.hold.y];
      heat = Math.max(heat, 0.12);
    }
    if (!running && n) {
      running = true;
      setTimeout(run, 0);
    }
  };
}

// The layout in a worker of its own; in the page itself where a browser gives a file no worker.
function startLayout(graph, onPlaces) {
  const ends = new Int32Array(graph.edges.flatMap((edge) => [edge.source, edge.target]));
  const start = { start: { nodes: graph.nodes.length, ends } };
  try {
    const source = `const port = { post: (m) => postMessage(m) }; (${layoutWorker})(port); onmessage = (e) => port.hear(e.data);`;
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.onmessage = (event) => onPlaces(event.data);
    worker.postMessage(start);
    return (message) => worker.postMessage(message);
  } catch {
    const port = { post: onPlaces };
    layoutWorker(port);
    port.hear(start);
    return port.hear;
  }
}
