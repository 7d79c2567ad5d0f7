// Makes the interfaces of the host available in Node, in memory:
//
//     node --import hostler-plugin/testing/register --test

import { register } from "node:module";

register("./hooks.js", import.meta.url);
