// The element <photo-viewer>: shows a photo with its mask and redraws it when a slider moves.
//
// Everything is drawn at screen resolution, so that photos of any size respond immediately. At
// 100% one pixel of the photo is one pixel of the screen.

const MARK = [255, 40, 40]; // as in overlay.png
const KEY_STEP = 0.15; // An arrow key moves by this fraction of the visible part.

const percent = (share) =>
  share > 0 && share < 0.001 ? "less than 0.1%" : `${(100 * share).toFixed(1)}%`;

const CONTROLS = `
<link rel="stylesheet" href="static/viewer.css">
<div class="bar">
  <fieldset class="views"><legend>Show</legend></fieldset>
  <div class="zoom" role="group" aria-label="Zoom">
    <button type="button" data-zoom="out" aria-label="Zoom out">&minus;</button>
    <button type="button" data-zoom="in" aria-label="Zoom in">+</button>
    <button type="button" data-zoom="native">100%</button>
    <button type="button" data-zoom="fit">Fit</button>
    <output aria-label="Zoom"></output>
  </div>
</div>
<canvas tabindex="0" role="img"></canvas>
<div class="sliders"></div>
<p class="legend"></p>
<p class="downloads">Download:
  <a data-file="mask.png" data-ending="_mask.png">mask</a>
  <a data-file="overlay.png" data-ending="_overlay.png">overlay</a>
  <a data-file="report.html" data-ending="_report.html">report</a>
  <a data-file="report.json" data-ending="_report.json">JSON</a>
  <label class="location"><input type="checkbox" name="location"> without the location</label>
</p>
<p class="print-hint">To print the report, download it and print the file.</p>
<iframe sandbox="allow-same-origin"></iframe>`;

const SLIDERS = `
<label>Opacity
  <input type="range" name="opacity" min="0" max="100" value="45"><output></output></label>
<label>Threshold
  <input type="range" name="threshold" min="0" max="1" step="0.01"><output></output></label>`;

const LEGEND = `
<span class="marked-part"><span class="swatch mark"></span> above the threshold:
  <output class="marked"></output> of the photo</span>
<label><input type="checkbox" name="hatch" checked> <span class="swatch hatch"></span>
  cannot be judged by the model</label>`;

// Its attributes are name, width, height and base (the address of the results); with a model, also
// threshold and shares (the marked fraction of the photo at each step of the threshold); and
// location if the metadata can reveal it.
class PhotoViewer extends HTMLElement {
  static observedAttributes = ["base"];

  constructor() {
    super();
    this.attachShadow({ mode: "open" });
    this.layer = document.createElement("canvas");
    this.shadowRoot.addEventListener("input", () => this.draw());
  }

  attributeChangedCallback() {
    queueMicrotask(() => this.start()); // Wait until all attributes are set.
  }

  disconnectedCallback() {
    this.watch?.disconnect();
    this.frameWatch?.disconnect();
  }

  start() {
    this.disconnectedCallback();
    this.size = ["width", "height"].map((name) => Number(this.getAttribute(name)));
    this.base = this.getAttribute("base");
    this.shares = JSON.parse(this.getAttribute("shares") || "null");
    this.scale = this.shownWidth = 0;
    this.shadowRoot.innerHTML = CONTROLS;
    this.canvas = this.find("canvas");
    this.frame = this.find("iframe");
    this.addControls();
    this.listen();
    this.report();
    this.load(this.base);
  }

  find(selector) {
    return this.shadowRoot.querySelector(selector);
  }

  findAll(selector) {
    return this.shadowRoot.querySelectorAll(selector);
  }

  get threshold() {
    const slider = this.find("[name=threshold]");
    return slider ? Number(slider.value) : null;
  }

  get view() {
    return this.find("[type=radio]:checked").value;
  }

  addControls() {
    const names = this.shares ? ["Overlay", "Photo", "Mask"] : ["Photo"];
    const views = this.find(".views");
    names.forEach((name, i) => {
      const label = document.createElement("label");
      label.innerHTML = `<input type="radio" name="view" value="${name}">${name}`;
      label.firstChild.checked = i === 0;
      views.append(label);
    });
    views.hidden = names.length < 2;
    this.find(".legend").innerHTML = LEGEND;
    this.find(".location").hidden = !this.hasAttribute("location");
    if (this.shares) {
      this.find(".sliders").innerHTML = SLIDERS;
      this.find("[name=threshold]").value = this.getAttribute("threshold");
    } else {
      this.find(".marked-part").remove();
      this.findAll(".downloads a[data-file$='.png']").forEach((a) => a.remove());
    }
  }

  async load(base) {
    const names = ["photograph", "unreadable", ...(this.shares ? ["mask"] : [])];
    const pictures = {};
    const decoded = names.map(async (name) => {
      const picture = new Image();
      picture.src = `${base}${name}.png`;
      await picture.decode();
      pictures[name] = picture;
    });
    try {
      await Promise.all(decoded);
    } catch {
      this.find(".legend").textContent = "This result has expired; examine the photo again.";
      return;
    }
    if (base !== this.base) return; // Another result has arrived in the meantime.
    this.pictures = pictures;
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(this);
    this.toggleAttribute("ready", true);
  }

  listen() {
    this.find("[name=threshold]")?.addEventListener("change", () => this.report());
    this.find("[name=location]").addEventListener("change", () => this.report());
    this.findAll("[data-zoom]").forEach((button) =>
      button.addEventListener("click", () => this.zoom(button.dataset.zoom)));
    const pressed = new Map();
    this.canvas.addEventListener("pointerdown", (event) => {
      pressed.set(event.pointerId, event);
      this.canvas.setPointerCapture(event.pointerId);
    });
    for (const name of ["pointerup", "pointercancel"])
      this.canvas.addEventListener(name, (event) => pressed.delete(event.pointerId));
    this.canvas.addEventListener("pointermove", (event) => {
      const before = pressed.get(event.pointerId);
      if (!before) return;
      const other = [...pressed.values()].find((pointer) => pointer.pointerId !== event.pointerId);
      if (other) {
        const distance = ({ clientX, clientY }) =>
          Math.hypot(clientX - other.clientX, clientY - other.clientY);
        this.rescale((this.scale * distance(event)) / Math.max(distance(before), 1));
      } else {
        this.move(before.clientX - event.clientX, before.clientY - event.clientY);
      }
      pressed.set(event.pointerId, event);
    });
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return; // The page scrolls.
      event.preventDefault();
      this.rescale(this.scale * Math.exp(-event.deltaY / 200));
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const [x, y] = [this.canvas.clientWidth * KEY_STEP, this.canvas.clientHeight * KEY_STEP];
      const moves = { ArrowLeft: [-x, 0], ArrowRight: [x, 0], ArrowUp: [0, -y], ArrowDown: [0, y] };
      const zooms = { "+": "in", "=": "in", "-": "out", 1: "native", 0: "fit" };
      const isFree = !(event.ctrlKey || event.metaKey || event.altKey); // Not a browser shortcut.
      if (isFree && moves[event.key] && this.scale > this.fit) this.move(...moves[event.key]);
      else if (isFree && zooms[event.key]) this.zoom(zooms[event.key]);
      else return;
      event.preventDefault();
    });
    this.frame.addEventListener("load", () => {
      const page = this.frame.contentDocument;
      if (!page?.body) return;
      page.body.style.padding = "0 0 1rem";
      this.frameWatch?.disconnect();
      this.frameWatch = new ResizeObserver(() => {
        this.frame.style.height = `${page.body.scrollHeight + 2}px`;
      });
      this.frameWatch.observe(page.body);
    });
  }

  // Load the report and set the download links for the current threshold.
  report() {
    const query = new URLSearchParams();
    if (this.threshold !== null) query.set("threshold", this.threshold);
    if (this.find("[name=location]").checked) query.set("omit_location", "true");
    const name = this.getAttribute("name");
    const stem = name.replace(/\.[^.]*$/, "") || "photo";
    this.frame.title = `Report on ${name}`;
    this.frame.src = `${this.base}panels.html?${query}`;
    this.findAll("[data-file]").forEach((link) => {
      link.href = `${this.base}${link.dataset.file}?${query}`;
      link.download = `${stem}${link.dataset.ending}`;
    });
  }

  resize() {
    const width = this.clientWidth;
    if (!width || width === this.shownWidth) return;
    this.shownWidth = width;
    const wasFit = !this.scale || this.scale === this.fit;
    const dense = window.devicePixelRatio || 1;
    const [w, h] = this.size;
    const height = Math.max(120, Math.min((width * h) / w, 0.72 * window.innerHeight));
    this.canvas.style.height = `${height}px`;
    for (const canvas of [this.canvas, this.layer]) {
      canvas.width = Math.round(width * dense);
      canvas.height = Math.round(height * dense);
    }
    this.fit = Math.min(this.canvas.width / w, this.canvas.height / h);
    if (wasFit) this.zoom("fit");
    else this.rescale(this.scale);
  }

  zoom(how) {
    const next = { in: this.scale * 1.5, out: this.scale / 1.5, native: 1, fit: this.fit }[how];
    if (how === "fit") this.centre = this.size.map((side) => side / 2);
    this.rescale(next);
  }

  rescale(scale) {
    this.scale = Math.min(Math.max(scale, Math.min(this.fit, 1)), Math.max(16, this.fit));
    this.move(0, 0);
  }

  // Move by pixels of the page. A photo that is smaller than the canvas stays centred.
  move(x, y) {
    const dense = window.devicePixelRatio || 1;
    const sides = [this.canvas.width, this.canvas.height];
    this.centre = [x, y].map((step, i) => {
      const half = sides[i] / this.scale / 2;
      if (2 * half >= this.size[i]) return this.size[i] / 2;
      const moved = this.centre[i] + (step * dense) / this.scale;
      return Math.min(Math.max(moved, half), this.size[i] - half);
    });
    this.draw();
  }

  draw() {
    if (this.isScheduled || !this.scale) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      this.paint();
      this.describe();
    });
  }

  drawScaled(context, picture) {
    const { width, height } = context.canvas;
    context.imageSmoothingEnabled = this.scale < 1;
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, width, height);
    const [left, top] = [width, height].map((side, i) =>
      Math.round(side / 2 - this.centre[i] * this.scale)); // Align the pixels at 100%.
    context.drawImage(picture, left, top, ...this.size.map((side) => side * this.scale));
  }

  values(name) {
    const context = this.layer.getContext("2d", { willReadFrequently: true });
    this.drawScaled(context, this.pictures[name]);
    return context.getImageData(0, 0, this.layer.width, this.layer.height);
  }

  paint() {
    const context = this.canvas.getContext("2d");
    const { view } = this;
    this.drawScaled(context, this.pictures[view === "Mask" ? "mask" : "photograph"]);
    const overlay = view === "Overlay" ? this.values("mask") : null;
    const hatched = this.find("[name=hatch]").checked ? this.values("unreadable") : null;
    if (!overlay && !hatched) return;
    const drawn = overlay || new ImageData(this.layer.width, this.layer.height);
    if (overlay) this.tint(overlay);
    if (hatched) this.hatch(drawn.data, hatched.data);
    const layer = this.layer.getContext("2d");
    layer.putImageData(drawn, 0, 0);
    context.drawImage(this.layer, 0, 0);
  }

  // Replace the mask's values with the tint and outline of the region above the threshold.
  tint({ data, width, height }) {
    const opacity = (255 * this.find("[name=opacity]").value) / 100;
    const minimum = 255 * this.threshold;
    const marked = new Uint8Array(width * height);
    for (let i = 0; i < marked.length; i++) {
      marked[i] = data[4 * i + 3] > 127 && data[4 * i] > minimum; // Outside the photo, alpha is 0.
    }
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const inner = marked[i] && (x === 0 || marked[i - 1]) && (x + 1 === width || marked[i + 1])
          && (y === 0 || marked[i - width]) && (y + 1 === height || marked[i + width]);
        data.set(MARK, 4 * i);
        data[4 * i + 3] = !marked[i] || opacity === 0 ? 0 : inner ? opacity : 255;
      }
    }
  }

  hatch(data, region) {
    const line = Math.max(1, Math.round(window.devicePixelRatio || 1));
    const { width } = this.layer;
    for (let i = 0; i < region.length / 4; i++) {
      if (region[4 * i] < 128) continue;
      const stripe = Math.floor(((i % width) + Math.floor(i / width)) / line) % 8;
      if (stripe > 1) continue;
      data.fill(stripe ? 20 : 235, 4 * i, 4 * i + 3);
      data[4 * i + 3] = 255;
    }
  }

  describe() {
    const dense = window.devicePixelRatio || 1;
    this.find(".zoom output").textContent = `${Math.round(100 * this.scale)}%`;
    const name = this.getAttribute("name");
    let text = `${name}, ${this.size.join(" by ")} pixels`;
    if (this.shares) {
      const marked = percent(this.shares[Math.round(100 * this.threshold)]);
      this.find(".marked").textContent = marked;
      const [opacity, threshold] = this.findAll(".sliders output");
      opacity.textContent = `${this.find("[name=opacity]").value}%`;
      threshold.textContent = this.threshold.toFixed(2);
      this.find(".sliders").hidden = this.view !== "Overlay";
      text = `${this.view} of ${text}; ${marked} marked`;
    }
    const keys = "Arrow keys move, plus and minus zoom, 1 shows 100%, 0 fits the photo.";
    this.canvas.setAttribute("aria-label", `${text}. ${keys}`);
    this.canvas.classList.toggle("zoomed", this.scale > this.fit * 1.001);
  }
}

customElements.define("photo-viewer", PhotoViewer);
