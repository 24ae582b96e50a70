// Swagger UI, with the key that was typed in on the page at / (this tab only).

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: (request) => {
    const key = sessionStorage.getItem("key");
    if (key) request.headers["X-API-Key"] ??= key;
    return request;
  },
});
