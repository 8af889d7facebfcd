import { apiUrls } from "./api-urls.generated.js";

/** The address of a route with its parameters filled in. */
export function address(route, parameters = {}) {
  const template = apiUrls[route];
  if (template === undefined) throw new Error(`unknown route ${route}`);
  return template.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(parameters[name]));
}
