// A classic script: a page that is opened from the disk may not load modules, and then has to say why nothing happens.
{
  const say = words => { document.getElementById("demo-status").textContent = words; };
  if (location.protocol === "file:") {
    say("Browsers run this only from a server. In the folder of the course: " +
        "python -m http.server --directory build/site/html, then open the address that it prints.");
  } else if (typeof WebAssembly !== "object") {
    say("This browser has no WebAssembly, in which the network runs, or it is switched off. Another browser, or the " +
        "notebooks, will do.");
  } else {
    import("./page.js").catch(() => say("The demo could not be loaded. Load the page again."));
  }
}
