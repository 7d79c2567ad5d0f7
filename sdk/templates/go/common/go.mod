module plugins.local/{{name}}

go 1.24

require hostler v0.0.0

// The SDK is a folder of this project, and needs no other module.
replace hostler => ./sdk

tool hostler/cmd/hostlerbuild
