// Before anything is drawn: the theme and the direction of the language that were chosen, so that nothing jumps.
{
  const { dataset } = document.documentElement;
  const theme = localStorage.getItem("cotrain.theme");
  if (theme === "light" || theme === "dark") dataset.theme = theme;
  if (localStorage.getItem("cotrain.language") === "fa") document.documentElement.dir = "rtl";
}
