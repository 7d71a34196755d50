// Set the theme before the first paint: the one chosen on this page, else the system's.
(() => {
  const chosen = localStorage.getItem("outbox-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
