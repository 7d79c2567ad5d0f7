/* The SDK and the stand-in for the role `transformer`, for unit tests: one file to compile with the plugin. */
#include "../bindings/transformer/bindings.h"

#include "../src/memory.c"
#include "../src/tensor.c"
#include "../src/float16.c"
#include "../src/json.c"
#include "../src/answer.c"
#include "../src/request.c"
#include "../src/host.c"
#include "../src/calls.c"
#include "../src/role_transformer.c"

#include "tensors.c"
#include "host.c"
#include "models.c"
#include "testing.c"
#include "run_transformer.c"
