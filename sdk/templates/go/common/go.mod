module {{name}}

go 1.24

require hostler v0.0.0

replace hostler => ./sdk
