(() => {
  const root = document.documentElement;
  if (typeof DecompressionStream === "function") root.classList.add("js");
  try { const kept = localStorage.getItem("nicheloop-theme"); if (kept) root.dataset.theme = kept; } catch { /* no storage */ }
})();
