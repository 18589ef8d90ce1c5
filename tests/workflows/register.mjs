// Installs hook.mjs: `node --import ./register.mjs read.mjs FILE...`.
import { register } from "node:module";

register("./hook.mjs", import.meta.url);
