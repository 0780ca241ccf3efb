for (const input of document.querySelectorAll(".frame input"))
  input.addEventListener("input", () => input.parentElement.style.setProperty("--x", `${input.value}%`));
