from bridgetower_cli.app import main

main()
