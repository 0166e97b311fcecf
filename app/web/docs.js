"use strict";
const place = document.getElementById("swagger-ui");
SwaggerUIBundle({
  url: place.dataset.url,
  domNode: place,
  deepLinking: true,
  // An online service would otherwise be asked to validate the document.
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
