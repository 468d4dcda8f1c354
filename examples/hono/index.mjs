// A Worker that uses a credential of keyreeve's over a service binding: `services = [{ binding = "KEYREEVE", service = "keyreeve" }]`.
import { Hono } from "hono";

const app = new Hono();
app.get("/push", async (c) => {
  const { token, expires_at } = await c.env.KEYREEVE.token(c.env.KEYREEVE_KEY, "up", "1m");
  // ... here it would call the upstream with `token`; this one shows that it has it.
  return c.json({ has: token.slice(0, 12), until: expires_at });
});
export default app;
