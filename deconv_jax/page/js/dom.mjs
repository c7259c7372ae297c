// Elements. Text from outside (names of clips and labels, notes) only ever becomes textContent.

export const $ = (id) => document.getElementById(id);
export const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};
export const say = (text) => { $("status").textContent = text; };
