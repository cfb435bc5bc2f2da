// No module, since browsers load none from files: says why nothing comes where the page is one.

if (location.protocol === "file:") {
  document.querySelector("#status").textContent =
    "This page was opened from a file, where browsers run no modules: serve its folder, as with " +
    "`python -m http.server`, and open the address that is printed.";
}
